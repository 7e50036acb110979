//! A whole daemon, from its configuration to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control::{LoadPlan, LoadRequest};
use tokio::net::TcpListener;
use tokio::sync::watch;
use traces::{Service, Traces};

use crate::app::{self, App};
use crate::auth::{ApiKey, KeyError};
use crate::child::process::EngineProgram;
use crate::config::{self, Config};
use crate::models::Models;
use crate::models::lifecycle::RestartPolicy;
use crate::server;

/// How long running requests may go on after the daemon was told to end.
const SHUTDOWN_DRAIN: Duration = Duration::from_secs(10);

/// How long connections may take to end after that; kept-alive ones end at once.
const CONNECTION_GRACE: Duration = Duration::from_secs(5);

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be bound.
    #[error("cannot listen on {listen}: {error}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] traces::BuildError),
    /// What a load would take cannot be said.
    #[error("{0}")]
    Plan(String),
}

/// What `serve` would refuse before it listens, beyond what the configuration itself says.
pub fn check(config: &Config) -> Result<(), ServeError> {
    config.api_key_file.as_deref().map(ApiKey::read).transpose()?;
    Ok(())
}

/// What a load would take of this host, by the same way as `POST /models/load?dry_run=1`. Needs a
/// Tokio runtime.
pub async fn plan(
    config: &Config,
    own_engine: EngineProgram,
    request: LoadRequest,
) -> Result<LoadPlan, ServeError> {
    // The operator may name any place, as in the configuration.
    let config = Config { default_models: vec![request.clone()], ..config.clone() };
    let models = Models::new(&config, own_engine, RestartPolicy::default());
    models.dry_run(&request).await.map_err(|error| ServeError::Plan(error.to_string()))
}

/// A daemon that listens.
pub struct Daemon {
    /// The address that was really bound.
    pub listen: SocketAddr,
    app: Arc<App>,
    listener: TcpListener,
}

impl Daemon {
    /// Binds the address first; models are loaded once it runs (requirement 71).
    pub async fn bind(
        config: &Config,
        own_engine: EngineProgram,
        policy: RestartPolicy,
    ) -> Result<Self, ServeError> {
        let key = config.api_key_file.as_deref().map(ApiKey::read).transpose()?;
        let unbound = |error| ServeError::Listen { listen: config.listen, error };
        let listener = TcpListener::bind(config.listen).await.map_err(unbound)?;
        let listen = listener.local_addr().map_err(unbound)?;
        let models = Models::new(config, own_engine, policy);
        let mut app = App::new(config, models, key, listen);
        app.traces = start_traces(&config.traces)?;
        let app = Arc::new(app);
        Ok(Self { listen, app, listener })
    }

    /// Serves until `stop` turns true, then ends in order: no new requests, running ones get a
    /// moment, every engine child is gone.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { app, listener, listen } = self;
        tracing::info!(%listen, version = env!("CARGO_PKG_VERSION"), "neuron serves");
        let loader = Arc::clone(&app);
        tokio::spawn(async move { loader.models.load_configured().await });
        // Connections stay open while models drain, so that running answers reach their end.
        let (close, closed) = watch::channel(false);
        let router = app::router(Arc::clone(&app));
        let server = tokio::spawn(server::serve(listener, router, closed, CONNECTION_GRACE));
        let _ = stop.wait_for(|stop| *stop).await;
        tracing::info!("shutting down");
        app.stop();
        app.models.shut_down(SHUTDOWN_DRAIN).await;
        let _ = close.send(true);
        let _ = server.await;
        if let Some(traces) = app.traces.clone() {
            // It waits for the collector, which no thread of the runtime may.
            let _ = tokio::task::spawn_blocking(move || traces.stop()).await;
        }
        tracing::info!("all engines and connections ended");
    }
}

fn start_traces(config: &config::Traces) -> Result<Option<Traces>, traces::BuildError> {
    let Some(endpoint) = &config.endpoint else { return Ok(None) };
    let version = env!("CARGO_PKG_VERSION");
    Traces::start(Service { name: "neuron", version, endpoint, share: config.share }).map(Some)
}
