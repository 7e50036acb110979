//! Asks every node for its report, each at its own pace: a node that hangs delays nobody's next
//! poll but its own (requirement 117).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control::{Discovery, Health, ModelReport};
use fleet::{NodeReport, Observation, Standing, Tick, observe};
use http::Uri;
use http::uri::{Authority, PathAndQuery};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::app::App;
use crate::config::Neuron;

/// The tasks that poll, one a node, by its name.
#[derive(Default)]
pub(crate) struct Pollers {
    tasks: Mutex<HashMap<String, Poller>>,
}

struct Poller {
    endpoint: String,
    wake: Arc<Notify>,
    task: AbortHandle,
}

impl App {
    /// Starts and ends tasks until there is one for every configured node.
    pub(crate) fn follow_nodes(self: &Arc<App>) {
        let settings = self.settings.load();
        let mut tasks = self.pollers.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let neurons = &settings.config.neurons;
        tasks.retain(|name, poller| {
            let is_kept = neurons
                .iter()
                .any(|neuron| neuron.name == *name && neuron.endpoint == poller.endpoint);
            if !is_kept {
                poller.task.abort();
            }
            is_kept
        });
        for neuron in neurons {
            tasks.entry(neuron.name.clone()).or_insert_with(|| {
                let wake = Arc::<Notify>::default();
                let polling = poll_forever(Arc::clone(self), neuron.clone(), Arc::clone(&wake));
                let task = tokio::spawn(polling).abort_handle();
                Poller { endpoint: neuron.endpoint.clone(), wake, task }
            });
        }
    }

    /// Ends all polling.
    pub(crate) fn stop_polling(&self) {
        let mut tasks = self.pollers.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain().for_each(|(_, poller)| poller.task.abort());
    }

    /// Has a node polled now, because something has just changed there.
    pub(crate) fn poll_soon(&self, place: usize) {
        let name = self.node_name(place);
        let tasks = self.pollers.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(poller) = tasks.get(&name) {
            poller.wake.notify_one();
        }
    }
}

async fn poll_forever(app: Arc<App>, neuron: Neuron, wake: Arc<Notify>) {
    let (limit, mut pace) = {
        let settings = app.settings.load();
        let gateway = &settings.config.gateway;
        let every = Duration::from_millis(gateway.poll_interval_ms);
        (Duration::from_millis(gateway.poll_timeout_ms), interval(every))
    };
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::default();
    loop {
        tokio::select! {
            _ = pace.tick() => {}
            () = wake.notified() => {}
        }
        // A report is as old as the question: what happened after it may not be in it.
        let asked = app.now();
        let observation = match timeout(limit, poll(&app, &neuron, &mut known)).await {
            Ok(Ok(report)) => Observation::Report(report),
            Ok(Err(why)) => Observation::Missed { why },
            Err(_) => {
                Observation::Missed { why: format!("no answer within {} ms", limit.as_millis()) }
            }
        };
        fold(&app, &neuron.name, &observation, asked);
    }
}

/// Puts the new snapshot in place and says so when a node's standing changed.
fn fold(app: &Arc<App>, name: &str, observation: &Observation, asked: Tick) {
    let now = app.now();
    let before = app.fleet.rcu(|fleet| observe(fleet, name, observation.clone(), asked));
    let after = app.fleet.load();
    app.front().note(&after);
    app.pump();
    let standing = |fleet: &fleet::Snapshot| {
        fleet.nodes.iter().find(|node| node.name == name).map(|node| node.standing(now))
    };
    match (standing(&before), standing(&after)) {
        (old, Some(new)) if old != Some(new) => match observation {
            Observation::Missed { why } => tracing::warn!(node = name, ?new, why, "node"),
            Observation::Report(_) if new == Standing::Alive => {
                tracing::info!(node = name, ?new, "node");
            }
            Observation::Report(_) => tracing::warn!(node = name, ?new, "node"),
        },
        _ => {}
    }
}

/// What does not change while a daemon runs.
#[derive(Default)]
struct Known {
    discovery: Option<Arc<Discovery>>,
    uptime_secs: u64,
}

async fn poll(app: &App, neuron: &Neuron, known: &mut Known) -> Result<NodeReport, String> {
    let base = &neuron.endpoint;
    let (health, models) =
        tokio::try_join!(fetch::<Health>(app, base, "/health"), fetch_models(app, neuron))?;
    // A daemon that started anew may run on other hardware.
    if health.uptime_secs < known.uptime_secs {
        known.discovery = None;
    }
    known.uptime_secs = health.uptime_secs;
    if known.discovery.is_none() {
        known.discovery = Some(Arc::new(fetch(app, base, "/discovery").await?));
    }
    Ok(NodeReport { health, models, discovery: known.discovery.clone() })
}

/// Entries that this version cannot read, of a newer node, are left out rather than fatal.
async fn fetch_models(app: &App, neuron: &Neuron) -> Result<Vec<ModelReport>, String> {
    let entries: Vec<serde_json::Value> = fetch(app, &neuron.endpoint, "/models").await?;
    let read = |entry| match serde_json::from_value::<ModelReport>(entry) {
        Ok(report) => Some(report),
        Err(error) => {
            tracing::debug!(node = neuron.name, %error, "a model report was left out");
            None
        }
    };
    let mut models: Vec<ModelReport> = entries.into_iter().filter_map(read).collect();
    for model in &mut models {
        let reported = model.endpoint.as_deref();
        model.endpoint = reported.and_then(|url| reachable(url, &neuron.endpoint));
    }
    Ok(models)
}

/// `GET /health` has a body with 503 too.
async fn fetch<T: DeserializeOwned>(app: &App, base: &str, path: &str) -> Result<T, String> {
    let (status, body) = app.client.get(&format!("{base}{path}")).await?;
    if !matches!(status, 200 | 503) {
        return Err(format!("{path} answered {status}"));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{path} answered {status}: {error}"))
}

/// A node's own URL as the gateway can use it: a loopback host means the node's host, which is the
/// configured one (requirement 78). Without a trailing slash, so that no path begins with `//`.
fn reachable(reported: &str, configured: &str) -> Option<String> {
    let uri: Uri = reported.trim_end_matches('/').parse().ok()?;
    let authority = uri.authority()?;
    let host = match is_here(authority.host()) {
        true => configured.parse::<Uri>().ok()?.host()?.to_owned(),
        false => authority.host().to_owned(),
    };
    let authority: Authority = match authority.port() {
        Some(port) => format!("{host}:{port}").parse().ok()?,
        None => host.parse().ok()?,
    };
    let scheme = uri.scheme_str().unwrap_or("http");
    let path = uri.path_and_query().map_or("", PathAndQuery::path).trim_end_matches('/');
    Some(format!("{scheme}://{authority}{path}"))
}

fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::reachable;

    // Requirement 78
    #[test]
    fn a_loopback_url_is_rewritten_and_never_doubles_a_slash() {
        let far = "http://10.0.0.5:13131";
        for (reported, configured, wanted) in [
            ("http://127.0.0.1:13131", far, Some("http://10.0.0.5:13131")),
            ("http://127.0.0.1:13131/", far, Some("http://10.0.0.5:13131")),
            ("http://localhost:8000/base/", far, Some("http://10.0.0.5:8000/base")),
            ("http://0.0.0.0:8000//", far, Some("http://10.0.0.5:8000")),
            ("http://[::1]:8000", far, Some("http://10.0.0.5:8000")),
            ("http://10.0.0.9:8000", far, Some("http://10.0.0.9:8000")),
            ("http://127.0.0.1:9", "http://[fd00::1]:13131", Some("http://[fd00::1]:9")),
            ("http://127.0.0.1:9", "http://localhost:13131", Some("http://localhost:9")),
            ("not a url", far, None),
            ("/path", far, None),
        ] {
            assert_eq!(reachable(reported, configured).as_deref(), wanted, "{reported}");
        }
    }
}
