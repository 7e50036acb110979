//! Who asks: the id of a request, whose it is, the language of its errors, and what every answer
//! has in common.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::request::Parts;
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header,
};
use traces::Parent;
use wire::{Dialect, ErrorBody, Head};

use crate::app::App;
use crate::control_error::ControlError;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The id under which a request is logged and answered.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Who hears of an error: in which dialect and under which id.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) dialect: Dialect,
    pub(crate) request_id: Arc<str>,
    /// Whose request it is, by cortex's word.
    pub(crate) identity: Option<HeaderValue>,
    /// Whether a stream tells what it uses, for cortex.
    pub(crate) tells_usage: bool,
    /// The span that the request belongs to elsewhere.
    pub(crate) parent: Option<Parent>,
}

impl Asker {
    fn new(uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Self {
        let has_version = headers.contains_key("anthropic-version");
        let id = extensions.get::<RequestId>();
        Self {
            dialect: Dialect::of_request(uri.path(), has_version),
            request_id: id.map_or_else(|| "".into(), |RequestId(id)| Arc::clone(id)),
            identity: headers.get(control::IDENTITY_HEADER).cloned(),
            tells_usage: headers.contains_key(control::USAGE_HEADER),
            parent: headers
                .get(traces::HEADER)
                .and_then(|header| Parent::read(header.to_str().ok()?)),
        }
    }

    fn of(request: &Request) -> Self {
        Self::new(request.uri(), request.headers(), request.extensions())
    }

    /// An inference refusal.
    pub(crate) fn refuse(&self, error: &ErrorBody) -> Response {
        let (status, body) = self.dialect.error(error, &self.request_id);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = HeaderValue::from_static("application/json");
        let mut response = (status, [(header::CONTENT_TYPE, json)], body).into_response();
        let retry = if error.should_retry() { "true" } else { "false" };
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(retry));
        if let Some(secs) = error.retry_after_secs() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::new(&parts.uri, &parts.headers, &parts.extensions))
    }
}

/// Routes of the inference surface that have no version.
const TOKEN_ROUTES: [&str; 2] = ["/tokenize", "/detokenize"];

/// Whether a path speaks the inference dialects; the others speak the control plane's.
fn is_inference(path: &str) -> bool {
    path.starts_with("/v1/") || TOKEN_ROUTES.contains(&path)
}

pub(crate) async fn unknown_path(request: Request) -> Response {
    refuse_any(&request, &ErrorBody::route_not_found(request.uri().path()))
}

pub(crate) async fn wrong_method(request: Request) -> Response {
    let path = request.uri().path();
    let posts = ["/v1/messages/count_tokens", "/v1/embeddings", "/models/load", "/models/unload"];
    let mut generating = Dialect::ALL.iter().map(|dialect| dialect.path());
    let is_post = posts.contains(&path) || TOKEN_ROUTES.contains(&path);
    let allowed =
        if is_post || generating.any(|other| other == path) { "POST" } else { "GET,HEAD" };
    let mut response = if is_inference(path) {
        let error = ErrorBody::method_not_allowed(request.method().as_str(), allowed);
        Asker::of(&request).refuse(&error)
    } else {
        let message = format!("this path takes {allowed}");
        let mut error = ControlError::bad_request(message);
        (error.status, error.code) = (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
        error.into_response()
    };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Refuses a request in the language of its path.
fn refuse_any(request: &Request, error: &ErrorBody) -> Response {
    if is_inference(request.uri().path()) {
        return Asker::of(request).refuse(error);
    }
    let mut told = ControlError::bad_request(error.message.as_str());
    told.status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    told.code = error.code.unwrap_or(told.code);
    told.into_response()
}

/// Refuses a request whose head no proxy and no server could agree on.
pub(crate) async fn check_head(request: Request, next: Next) -> Response {
    let head = Head {
        target_bytes: request.uri().path_and_query().map_or(0, |target| target.as_str().len()),
        hosts: request.headers().get_all(header::HOST).iter().count(),
        is_http_11: request.version() == Version::HTTP_11,
    };
    match head.check() {
        Ok(()) => next.run(request).await,
        Err(error) => refuse_any(&request, &error),
    }
}

/// Everything but `/health` needs the key, where there is one.
pub(crate) async fn authorise(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let open = request.uri().path() == "/health" && request.method() == Method::GET;
    match &app.key {
        Some(key) if !open && !key.opens(request.headers()) => refuse_key(&request),
        _ => next.run(request).await,
    }
}

fn refuse_key(request: &Request) -> Response {
    let message = "this node needs an api key: send it as `Authorization: Bearer` or `x-api-key`";
    let mut error = ErrorBody::invalid_request(message);
    (error.status, error.code) = (401, Some("invalid_api_key"));
    let mut response = refuse_any(request, &error);
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// Requirement 129: a handler's panic is a 500 and the daemon lives.
pub(crate) async fn catch_panic(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let asker = Asker::of(&request);
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(path, "a handler panicked; the panic's message is above");
            let message = "the server made a mistake; it was logged";
            if is_inference(&path) {
                return asker.refuse(&ErrorBody::internal(message));
            }
            let mut error = ControlError::bad_request(message);
            (error.status, error.code) = (StatusCode::INTERNAL_SERVER_ERROR, "internal_error");
            error.into_response()
        }
    }
}

/// Echoes the caller's request id if it is sane, else makes one.
pub(crate) async fn name_request(mut request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).filter(|id| is_sane_id(id.as_bytes())).cloned();
    let id = id.unwrap_or_else(|| {
        let made = format!("req_{}", uuid::Uuid::new_v4().simple());
        HeaderValue::from_str(&made).expect("hexadecimal digits make a header value")
    });
    let text: Arc<str> = id.to_str().unwrap_or_default().into();
    request.extensions_mut().insert(RequestId(text));
    let dialect = Asker::of(&request).dialect;
    let mut response = next.run(request).await;
    if let Some(name) = dialect.request_id_header() {
        response.headers_mut().insert(HeaderName::from_static(name), id.clone());
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn is_sane_id(id: &[u8]) -> bool {
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=128).contains(&id.len()) && id.iter().all(sane)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn broken() -> StatusCode {
        panic!("a test wants to see this")
    }

    #[tokio::test]
    async fn a_panic_is_a_500_in_the_dialect_of_its_path() {
        // Requirement 129.
        let router = Router::new()
            .route("/v1/broken", get(broken))
            .route("/broken", get(broken))
            .layer(middleware::from_fn(catch_panic))
            .layer(middleware::from_fn(name_request));
        for (path, key) in [("/v1/broken", "type"), ("/broken", "code")] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 500);
            assert!(response.headers().contains_key(REQUEST_ID));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(body["error"][key].is_string(), "{body}");
            assert!(!body.to_string().contains("a test wants"), "{body}");
        }
    }
}
