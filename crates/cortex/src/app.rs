//! What all requests share, and which answer belongs to which path.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use fleet::{Snapshot, Tick};
use futures_util::FutureExt;
use http::header::{HOST, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::watch;
use traces::{Parent, Traces};
use wire::{Dialect, ErrorBody, Head};

use crate::auth::{Caller, Doorkeeper};
use crate::config::Scope;
use crate::forward::Client;
use crate::front::Front;
use crate::identity::Identities;
use crate::kept::Kept;
use crate::metrics::Metrics;
use crate::poll::Pollers;
use crate::probe::Probes;
use crate::record::Record;
use crate::reply::{self, Reply};
use crate::settings::Settings;
use crate::surface::SURFACES;
use crate::{admin, gauges, generate, listing, prefix_cache};

/// Given by the client or made here; on every answer, in the log, and sent on to the node.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The gateway's shared state.
pub(crate) struct App {
    /// What the operator says; replaced when it is read anew.
    pub settings: ArcSwap<Settings>,
    /// Replaced by the pollers, read without a lock.
    pub fleet: ArcSwap<Snapshot>,
    /// See [`Front`].
    pub front: Mutex<Front>,
    pub client: Client,
    pub metrics: Arc<Metrics>,
    pub identities: Identities,
    /// Who may ask.
    pub door: Doorkeeper,
    /// Where the spans of requests go, where somebody wants them.
    pub traces: Option<Traces>,
    pub pollers: Pollers,
    pub probes: Probes,
    /// Where work runs that outlives the request that began it.
    pub background: Handle,
    /// Bytes of bodies that are kept.
    pub kept: Arc<Kept>,
    /// True once the grace of a stop is over: what is still open ends now, with a word.
    pub cut: watch::Sender<bool>,
    started: Instant,
    /// Unix seconds, for the lists of models.
    pub created: u64,
}

impl App {
    pub(crate) fn new(settings: Settings, door: Doorkeeper, client: Client) -> App {
        let gateway = &settings.config.gateway;
        let nodes = settings.nodes();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        App {
            front: Mutex::new(Front::new(nodes.len())),
            fleet: ArcSwap::from_pointee(Snapshot::unseen(nodes)),
            client,
            metrics: Arc::default(),
            door,
            traces: None,
            identities: Identities::new(gateway.cache_isolation),
            pollers: Pollers::default(),
            probes: Probes::default(),
            background: Handle::current(),
            kept: Arc::default(),
            cut: watch::Sender::new(false),
            started: Instant::now(),
            created: since_epoch.as_secs(),
            settings: ArcSwap::from_pointee(settings),
        }
    }

    /// The clock of all policy.
    pub(crate) fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Requests that are open on each node.
    pub(crate) fn in_flight(&self) -> Vec<u32> {
        self.front().open.clone()
    }

    /// A node's name, for the log.
    pub(crate) fn node_name(&self, place: usize) -> String {
        self.fleet.load().nodes.get(place).map_or_else(String::new, |node| node.name.clone())
    }
}

/// Answers a client.
pub(crate) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Reply {
    let id = request_id(request.headers());
    let header = HeaderValue::from_str(&id);
    let has_version = request.headers().contains_key("anthropic-version");
    let dialect = Dialect::of_request(request.uri().path(), has_version);
    let mut reply = match admit(&app, &request) {
        Ok(caller) => {
            let answer = dispatch(&app, request, Arc::clone(&id), dialect, caller.clone());
            let mut reply = unless_panicked(dialect, &id, answer).await;
            if let Some(caller) = caller {
                caller.tell_rates(reply.headers_mut());
            }
            reply
        }
        Err(error) => turned_away(dialect, &id, &error, request.uri().path()),
    };
    if let Ok(value) = header {
        if let Some(name) = dialect.request_id_header() {
            reply.headers_mut().insert(HeaderName::from_static(name), value.clone());
        }
        reply.headers_mut().insert(REQUEST_ID, value);
    }
    reply
}

/// A head that everybody reads alike, and a key, where there are keys: everything but a look at the
/// gateway's health needs one.
fn admit(app: &App, request: &Request<Incoming>) -> Result<Option<Caller>, ErrorBody> {
    check_head(request)?;
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/health") | (&Method::HEAD, "/") => Ok(None),
        _ => app.door.admit(request.headers(), Scope::Inference),
    }
}

fn check_head(request: &Request<Incoming>) -> Result<(), ErrorBody> {
    let head = Head {
        target_bytes: request.uri().path_and_query().map_or(0, |target| target.as_str().len()),
        hosts: request.headers().get_all(HOST).iter().count(),
        is_http_11: request.version() == Version::HTTP_11,
    };
    head.check()
}

fn turned_away(dialect: Dialect, id: &str, error: &ErrorBody, path: &str) -> Reply {
    tracing::info!(id, path, status = error.status, code = error.code, "turned away at the door");
    let mut reply = reply::error_reply(dialect, id, error);
    if error.status == 401 {
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}

/// Answers an operator: the second listener, which is not for clients.
pub(crate) async fn answer_operator(app: Arc<App>, request: Request<Incoming>) -> Reply {
    const DIALECT: Dialect = Dialect::OpenaiChat;
    let path = request.uri().path();
    let scope = if path == "/metrics" { Scope::Metrics } else { Scope::Admin };
    let admitted = check_head(&request).and_then(|()| match path {
        "/health" => Ok(None),
        _ => app.door.admit(request.headers(), scope),
    });
    if let Err(error) = admitted {
        return turned_away(DIALECT, "", &error, path);
    }
    unless_panicked(DIALECT, "", async {
        let path = request.uri().path();
        if path.starts_with("/admin/") {
            return admin::answer(&app, request).await;
        }
        let get = |reply: &dyn Fn() -> Reply| match *request.method() {
            Method::GET | Method::HEAD => reply(),
            _ => reply::wrong_method(DIALECT, "", request.method(), "GET, HEAD"),
        };
        match path {
            "/metrics" => get(&|| {
                let mut text = app.metrics.render();
                prefix_cache::render(&mut text, &app.fleet.load());
                gauges::render(&mut text, &app.fleet.load(), app.now());
                app.door.ledger().render(&mut text);
                reply::bytes_reply(StatusCode::OK, "text/plain; version=0.0.4", text.into())
            }),
            "/health" => get(&|| listing::health(&app)),
            path => reply::error_reply(DIALECT, "", &ErrorBody::route_not_found(path)),
        }
    })
    .await
}

/// Requirement 129: a panic is one request's 500.
async fn unless_panicked(dialect: Dialect, id: &str, answer: impl Future<Output = Reply>) -> Reply {
    let caught = AssertUnwindSafe(answer).catch_unwind().await;
    caught.unwrap_or_else(|_| reply::internal_error(dialect, id))
}

async fn dispatch(
    app: &Arc<App>,
    request: Request<Incoming>,
    id: Arc<str>,
    dialect: Dialect,
    caller: Option<Caller>,
) -> Reply {
    let path = request.uri().path();
    if let Some(surface) = SURFACES.iter().find(|surface| surface.path == path) {
        if request.method() != Method::POST {
            return reply::wrong_method(dialect, &id, request.method(), "POST");
        }
        let mut record = Record::begin(app, surface, id, caller);
        record.span = app.traces.as_ref().map(|it| it.begin("request", parent(&request).as_ref()));
        // Boxed, or each future around it is moved with all the room that it needs.
        return Box::pin(generate::generate(app, surface, request, record)).await;
    }
    let page = || match path {
        "/v1/models" => Some(listing::models(app, dialect)),
        "/health" => Some(listing::health(app)),
        "/openapi.json" => Some(listing::openapi()),
        "/version" | "/" => Some(listing::version()),
        path if path.starts_with("/v1/models/") => Some(listing::model(app, path, dialect, &id)),
        _ => None,
    };
    // A path that does not exist has no methods to be wrong about.
    let Some(reply) = page() else {
        tracing::info!(id = &*id, method = %request.method(), path, "no such route");
        return reply::error_reply(dialect, &id, &ErrorBody::route_not_found(path));
    };
    match *request.method() {
        Method::GET | Method::HEAD => reply,
        _ => reply::wrong_method(dialect, &id, request.method(), "GET, HEAD"),
    }
}

/// The span that a request belongs to elsewhere.
fn parent(request: &Request<Incoming>) -> Option<Parent> {
    Parent::read(request.headers().get(traces::HEADER)?.to_str().ok()?)
}

/// The client's id when it is sane, else a random one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let is_sane = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    match headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_sane) {
        Some(id) => Arc::from(id),
        None => Arc::from(fresh_id().to_string()),
    }
}

/// An id that no other request has. It is no secret, so that the system is asked for randomness
/// once a thread and not once a request.
fn fresh_id() -> uuid::Uuid {
    thread_local! {
        static IDS: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
    }
    let bits = IDS.with(|(hasher, count)| {
        count.set(count.get() + 1);
        [0, 1].map(|half| hasher.hash_one((count.get(), half)))
    });
    let [high, low] = bits.map(u64::to_be_bytes);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high);
    bytes[8..].copy_from_slice(&low);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use wire::Dialect;

    use super::{REQUEST_ID, request_id, unless_panicked};

    // Requirement 129
    #[tokio::test]
    async fn a_panic_becomes_a_500() {
        let reply = unless_panicked(Dialect::Anthropic, "i", async { panic!("deliberate") }).await;
        assert_eq!(reply.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        let long = "x".repeat(129);
        for (given, kept) in
            [("abc-1.2:3_X", true), ("", false), ("a b", false), ("a\"b", false), (&long, false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(given).expect("a header"));
            let id = request_id(&headers);
            assert_eq!(&*id == given, kept, "{given:?} became {id}");
            assert!(!id.is_empty());
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
