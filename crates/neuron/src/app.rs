//! The routes of a neuron and what they share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use control::Discovery;
use http::{HeaderMap, header};
use tokio::sync::Semaphore;
use traces::Traces;
use wire::Dialect;

use crate::asker::{authorise, catch_panic, check_head, name_request, unknown_path, wrong_method};
use crate::auth::ApiKey;
use crate::config::Config;
use crate::host::readings::Readings;
use crate::host::{cards, discover};
use crate::isolation::Isolation;
use crate::models::Models;
use crate::{control_routes, generate, metrics};

/// What the routes share.
pub(crate) struct App {
    /// The models.
    pub(crate) models: Models,
    /// This host.
    pub(crate) discovery: Discovery,
    /// How its cards are.
    pub(crate) cards: Readings,
    /// When the daemon started.
    pub(crate) started: Instant,
    /// The same by the wall clock, for what is shown to callers.
    pub(crate) started_unix_secs: u64,
    /// Largest request body.
    pub(crate) body_limit: usize,
    /// Large bodies are parsed and tokenised by this many threads at most.
    pub(crate) heavy_work: Arc<Semaphore>,
    /// Who shares what was computed.
    pub(crate) isolation: Isolation,
    /// Where the spans of requests go, where somebody wants them.
    pub(crate) traces: Option<Traces>,
    /// What callers must present, where there is a key.
    pub(crate) key: Option<ApiKey>,
    advertise_url: Option<String>,
    listen: SocketAddr,
    stopping: AtomicBool,
}

impl App {
    /// The application behind `listen`, the address that was really bound.
    pub(crate) fn new(
        config: &Config,
        models: Models,
        key: Option<ApiKey>,
        listen: SocketAddr,
    ) -> Self {
        let discovery = discover::discover();
        let heavy_work = Arc::new(Semaphore::new(discovery.cpu.cores.max(1) as usize));
        Self {
            models,
            discovery,
            cards: Readings::new(cards::health),
            started: Instant::now(),
            started_unix_secs: unix_secs(),
            body_limit: config.body_limit_mb as usize * (1 << 20),
            heavy_work,
            isolation: Isolation::new(config.harness.native.cache_isolation),
            traces: None,
            key,
            advertise_url: config
                .advertise_url
                .as_deref()
                .map(|url| url.trim_end_matches('/').into()),
            listen,
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on `/health` says that this node is going away.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the daemon shuts down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Where this node answers: as configured, else as the caller reached it.
    pub(crate) fn base_url(&self, headers: &HeaderMap) -> String {
        if let Some(url) = &self.advertise_url {
            return url.clone();
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let plain = |host: &&str| {
            !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
        };
        let host = host.filter(plain).map_or_else(|| self.listen.to_string(), str::to_owned);
        format!("http://{host}")
    }
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for dialect in Dialect::ALL {
        let generate = move |state, asker, headers, body| {
            generate::generate(dialect, state, asker, headers, body)
        };
        router = router.route(dialect.path(), post(generate));
    }
    router
        .route("/", get(control_routes::root))
        .route("/discovery", get(control_routes::discovery))
        .route("/health", get(control_routes::health))
        .route("/version", get(control_routes::version))
        .route("/metrics", get(metrics::metrics))
        .route("/models", get(control_routes::list))
        .route("/models/load", post(control_routes::load))
        .route("/models/unload", post(control_routes::unload))
        .route("/models/{*rest}", get(control_routes::one))
        .route("/v1/models", get(generate::list_models))
        .route("/v1/models/{*id}", get(generate::one_model))
        .route("/v1/messages/count_tokens", post(generate::count_tokens))
        .route("/v1/embeddings", post(generate::embed))
        .route("/openapi.json", get(generate::openapi))
        .route("/tokenize", post(generate::tokenize))
        .route("/detokenize", post(generate::detokenize))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), authorise))
        .layer(middleware::from_fn(check_head))
        .layer(middleware::from_fn(catch_panic))
        .layer(middleware::from_fn(name_request))
        .with_state(app)
}

/// Now, by the wall clock.
pub(crate) fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn the_endpoint_is_where_the_caller_reached_us() {
        let config = Config::default();
        let program = crate::child::process::EngineProgram {
            path: "none".into(),
            args: vec![],
            step_timeout: std::time::Duration::from_secs(1),
        };
        let app = |config: &Config| {
            let models = Models::new(config, program.clone(), Default::default());
            App::new(config, models, None, config.listen)
        };
        let mut headers = HeaderMap::new();
        assert_eq!(app(&config).base_url(&headers), "http://127.0.0.1:13131");
        headers.insert(header::HOST, HeaderValue::from_static("gpu1.lan:13131"));
        assert_eq!(app(&config).base_url(&headers), "http://gpu1.lan:13131");
        // Requirement 78: what is configured wins, and no path gets a double slash.
        let url = Some("https://n.example/neuron/".to_owned());
        let config = Config { advertise_url: url, ..config };
        assert_eq!(app(&config).base_url(&headers), "https://n.example/neuron");
        let config = Config { advertise_url: None, ..config };
        headers.insert(header::HOST, HeaderValue::from_static("evil/../x"));
        assert_eq!(app(&config).base_url(&headers), "http://127.0.0.1:13131");
    }
}
