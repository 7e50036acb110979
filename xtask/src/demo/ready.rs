//! Waits until both programs answer and the model is loaded, and says how far they are.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::daemon::{self, CHECK_INTERVAL, Daemon};
use super::progress::Progress;
use super::watch::Watch;

/// How long a program may take until it answers at all. A load has no limit: it shows progress.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long one question may take on loopback.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Report {
    id: String,
    status: String,
    progress: Option<Loaded>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Loaded {
    done_bytes: u64,
    total_bytes: u64,
}

#[derive(Deserialize)]
struct Listing {
    data: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    loaded: bool,
}

/// Waits until the neuron at `url` has `model` ready.
pub(crate) fn neuron(daemon: &mut Daemon, watch: &Watch, url: &str, model: &str) -> Result<()> {
    let mut progress = Progress::new();
    progress.show(format!("starting neuron on {url}"));
    answers(&mut [daemon], watch, "neuron", &format!("{url}/health"))?;
    loop {
        let text = get(&format!("{url}/models"))?;
        let reports: Vec<Report> =
            serde_json::from_str(&text).context("neuron's GET /models is not as expected")?;
        if let Some(report) = reports.iter().find(|report| report.id == model) {
            progress.show(describe(report));
            match report.status.as_str() {
                "ready" => return Ok(()),
                "failed" => bail!(
                    "{model} cannot be loaded: {}",
                    report.error.as_deref().unwrap_or("neuron gives no reason")
                ),
                _ => {}
            }
        }
        daemon.alive()?;
        watch.pause(CHECK_INTERVAL)?;
    }
}

/// Waits until the cortex at `url` knows where `model` is served.
pub(crate) fn cortex(
    daemons: &mut [&mut Daemon],
    watch: &Watch,
    url: &str,
    model: &str,
) -> Result<()> {
    let mut progress = Progress::new();
    progress.show(format!("starting cortex on {url}"));
    answers(daemons, watch, "cortex", &format!("{url}/v1/models"))?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let text = get(&format!("{url}/v1/models"))?;
        let listing: Listing =
            serde_json::from_str(&text).context("cortex's GET /v1/models is not as expected")?;
        if listing.data.iter().any(|entry| entry.id == model && entry.loaded) {
            progress.show(format!("cortex on {url} serves {model}"));
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("cortex did not find {model} within {} s: {text}", START_LIMIT.as_secs());
        }
        daemon::all_alive(daemons)?;
        watch.pause(CHECK_INTERVAL)?;
    }
}

/// Waits until `url` answers, whatever it says.
fn answers(daemons: &mut [&mut Daemon], watch: &Watch, name: &str, url: &str) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        // A status is an answer; only a connection that fails is none.
        let failure = match request(url) {
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        if Instant::now() > deadline {
            bail!("{name} did not answer {url} within {} s: {failure}", START_LIMIT.as_secs());
        }
        daemon::all_alive(daemons)?;
        watch.pause(CHECK_INTERVAL)?;
    }
}

fn get(url: &str) -> Result<String> {
    let mut response = request(url).with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    let text = response.body_mut().read_to_string().with_context(|| format!("{url} broke off"))?;
    if !status.is_success() {
        bail!("{url} answered {status}: {}", text.trim());
    }
    Ok(text)
}

fn request(url: &str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let config = ureq::get(url).config();
    // A proxy of the user's environment has no business with loopback.
    config.proxy(None).timeout_global(Some(ANSWER_LIMIT)).http_status_as_error(false).build().call()
}

fn describe(report: &Report) -> String {
    let (id, status) = (&report.id, &report.status);
    match &report.progress {
        Some(Loaded { done_bytes, total_bytes }) if *total_bytes > 0 && status == "loading" => {
            let percent = u128::from(*done_bytes) * 100 / u128::from(*total_bytes);
            format!("{id}: loading, {percent} % of {}", size(*total_bytes))
        }
        _ => format!("{id}: {status}"),
    }
}

fn size(bytes: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_described_with_its_share() {
        let text = r#"{"id":"a","status":"loading","harness":"native",
                       "progress":{"done_bytes":5242880,"total_bytes":10485760}}"#;
        let report: Report = serde_json::from_str(text).expect("a report");
        assert_eq!(describe(&report), "a: loading, 50 % of 10.0 MiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }
}
