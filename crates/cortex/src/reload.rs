//! Reads both files anew while the gateway runs: on SIGHUP, when a file has changed, or when an
//! operator says so. A file with a mistake changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use crate::Error;
use crate::app::App;
use crate::config::Config;
use crate::forward::NodeKeys;
use crate::settings::Settings;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Reloads for as long as the gateway runs.
pub(crate) async fn watch(app: Arc<App>) {
    // Without signals the files are still watched.
    let mut hangups = signal(SignalKind::hangup()).ok();
    let mut looks = interval(LOOK);
    let mut known = stamps(&app);
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hangup => {}
            _ = looks.tick() => {
                if stamps(&app) == known {
                    continue;
                }
            }
        }
        match reload(&app).await {
            Ok(fixed) if fixed.is_empty() => tracing::info!("the configuration was read anew"),
            Ok(fixed) => tracing::warn!(?fixed, "read anew; these keys need a restart"),
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
        known = stamps(&app);
    }
}

/// Puts both files into force, or says what is wrong and changes nothing. The answer names the keys
/// that have changed and do not count before a restart.
///
/// # Errors
/// [`Error::Config`], as at the start.
pub(crate) async fn reload(app: &Arc<App>) -> Result<Vec<&'static str>, Error> {
    let current = app.settings.load_full();
    let file = current.config.file.as_deref().ok_or_else(|| Error::Config {
        place: "configuration".to_owned(),
        problem: "it came from no file, so that it cannot be read anew".to_owned(),
    })?;
    let mut config = Config::load(file)?;
    config.gateway.allow_unauthenticated |= current.config.gateway.allow_unauthenticated;
    config.check_exposure()?;
    let settings = Settings::new(config)?;
    let fixed = fixed(&current.config, &settings.config);
    let nodes = settings.nodes();
    // What can fail comes first, so that a mistake changes nothing.
    let keys = NodeKeys::read(&settings.config.neurons)?;
    app.door.replace(&settings.config.auth).await?;
    app.client.take_keys(keys);
    app.settings.store(Arc::new(settings));
    let fleet = app.fleet.rcu(|fleet| fleet.reconfigured(&nodes));
    {
        let mut front = app.front();
        let places = fleet.nodes.len().max(nodes.len());
        let count = front.open.len().max(places);
        front.open.resize(count, 0);
        front.desk.forget_plans();
    }
    app.follow_nodes();
    app.pump();
    Ok(fixed)
}

/// What is taken up once, at the start.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let tables = [
        ("gateway.tls", old.gateway.tls != new.gateway.tls),
        ("ledger", old.ledger != new.ledger),
        ("traces", old.traces != new.traces),
    ];
    let (old, new) = (&old.gateway, &new.gateway);
    let changed = [
        ("gateway.listen", old.listen != new.listen),
        ("gateway.metrics_listen", old.metrics_listen != new.metrics_listen),
        ("gateway.connect_timeout_ms", old.connect_timeout_ms != new.connect_timeout_ms),
        ("gateway.poll_interval_ms", old.poll_interval_ms != new.poll_interval_ms),
        ("gateway.poll_timeout_ms", old.poll_timeout_ms != new.poll_timeout_ms),
        ("gateway.threads", old.threads != new.threads),
        ("gateway.cache_isolation", old.cache_isolation != new.cache_isolation),
    ];
    changed
        .into_iter()
        .chain(tables)
        .filter(|(_, is_changed)| *is_changed)
        .map(|(key, _)| key)
        .collect()
}

type Stamp = Option<(SystemTime, u64)>;

/// When the files were last written, and their lengths.
fn stamps(app: &App) -> [Stamp; 2] {
    let settings = app.settings.load();
    let stamp = |path: Option<&Path>| {
        let about = std::fs::metadata(path?).ok()?;
        Some((about.modified().ok()?, about.len()))
    };
    let config = &settings.config;
    [stamp(config.file.as_deref()), stamp(config.gateway.models_config.as_deref())]
}
