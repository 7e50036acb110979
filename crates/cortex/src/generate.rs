//! One inference request: read the body, peek, route, forward.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control::ModelStatus;
use fleet::{Ask, Forward, Refusal, Route, Standing, Unavailable};
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;
use wire::{ErrorBody, Peek, Retry};

use crate::app::{App, Ticket};
use crate::forward::{Fault, reply_headers, request_headers};
use crate::record::{End, Record};
use crate::relay::Relay;
use crate::reply::{Reply, ReplyBody, error_reply};
use crate::surface::Surface;

/// Requirement 128.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request that waits for its answer to begin looks whether its node still lives.
const LOOK: Duration = Duration::from_secs(1);

/// Answers one inference request; `record` tells its story whatever happens.
pub(crate) async fn generate(
    app: &Arc<App>,
    surface: &'static Surface,
    request: Request<Incoming>,
    mut record: Record,
) -> Reply {
    let query = request.uri().query().map(str::to_owned);
    let (head, body) = request.into_parts();
    let asked = match read(app, surface, &head.headers, body, &mut record).await {
        Ok((body, peek)) => {
            if let Err(error) = record.meter.reserve(app, surface, &body, &peek) {
                return refuse(&error, record);
            }
            let is_stream = peek.stream;
            let identity = app.identities.of(&head.headers);
            let headers = request_headers(head.headers, &record.id, identity);
            Asked { surface, query, headers, body, is_stream }
        }
        Err(Unread { error, close }) => {
            let mut reply = refuse(&error, record);
            if close {
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return reply;
        }
    };
    match forward(app, &asked, &mut record).await {
        Ok(answered) => relay(app, surface, answered, record),
        Err(error) => refuse(&error, record),
    }
}

/// A request as it is sent on; sent twice at most.
struct Asked {
    surface: &'static Surface,
    query: Option<String>,
    headers: HeaderMap,
    body: Bytes,
    is_stream: bool,
}

/// Why a request was not understood.
struct Unread {
    error: ErrorBody,
    /// The rest of the body is still on its way and nobody will read it.
    close: bool,
}

/// Reads the body and what routing needs of it.
async fn read(
    app: &App,
    surface: &Surface,
    headers: &HeaderMap,
    body: Incoming,
    record: &mut Record,
) -> Result<(Bytes, Peek), Unread> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|e| *e != "identity") {
        let found = format!("content-encoding {}", String::from_utf8_lossy(encoding.as_bytes()));
        return Err(Unread { error: ErrorBody::unsupported_media_type(&found), close: true });
    }
    let limit = app.config.gateway.body_limit_bytes();
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: usize| length > limit) {
        return Err(Unread { error: ErrorBody::body_too_large(limit as u64), close: true });
    }
    let body = match timeout(BODY_TIMEOUT, whole(body, limit)).await {
        Ok(body) => body?,
        Err(_) => {
            let mut error = ErrorBody::invalid_request("the body did not arrive within 60 s");
            error.status = 408;
            error.code = Some("request_timeout");
            return Err(Unread { error, close: true });
        }
    };
    record.request_bytes = body.len();
    let peek = surface
        .dialect
        .peek(&body)
        .map_err(|error| Unread { error: ErrorBody::from(&error), close: false })?;
    record.model = Some(peek.model.clone());
    Ok((body, peek))
}

/// All of a body; without a copy when it came in one piece.
async fn whole(mut body: Incoming, limit: usize) -> Result<Bytes, Unread> {
    let broken = |_| {
        let error = ErrorBody::invalid_request("the body ended before it was complete");
        Unread { error, close: true }
    };
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(limit).min(limit);
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        let so_far = first.as_ref().map_or(joined.len(), Bytes::len);
        if so_far + piece.len() > limit {
            return Err(Unread { error: ErrorBody::body_too_large(limit as u64), close: true });
        }
        match first.take() {
            None if joined.is_empty() => first = Some(piece),
            None => joined.extend_from_slice(&piece),
            Some(earlier) => {
                joined.reserve(expected.max(earlier.len() + piece.len()));
                joined.extend_from_slice(&earlier);
                joined.extend_from_slice(&piece);
            }
        }
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

/// The head of a node's answer; the ticket counts the request there.
struct Answered {
    upstream: Response<Incoming>,
    node: String,
    ticket: Ticket,
}

/// Asks a replica, and once more another one when nothing of an answer has come (requirement 123).
async fn forward(app: &App, asked: &Asked, record: &mut Record) -> Result<Answered, ErrorBody> {
    let model = record.model.clone().unwrap_or_default();
    let snapshot = app.fleet.load_full();
    let mut tried = None;
    // A node that answers "not now" is worth a second opinion, and its words are worth keeping.
    let mut busy: Option<Answered> = None;
    loop {
        let in_flight = app.in_flight();
        let ask = Ask { model: &model, in_flight: &in_flight, tried, leaving: &[] };
        let to = match fleet::route(&snapshot, &ask, app.now()) {
            Route::Forward(to) => to,
            Route::Refuse(refusal) => return busy.ok_or_else(|| refused(refusal, &model)),
        };
        let (node, ticket) = (to.name.to_owned(), app.ticket(to.node));
        record.retried = tried.is_some();
        record.node = Some(node.clone());
        match send(app, &to, asked).await {
            Ok(upstream) if upstream.status() == 503 && tried.is_none() => {
                busy = Some(Answered { upstream, node, ticket });
            }
            Ok(upstream) => return Ok(Answered { upstream, node, ticket }),
            Err(Fault::Stopped) => {
                return Err(ErrorBody::draining("the gateway stops; ask again", 2));
            }
            Err(fault) => {
                let error = crate::forward::chained(&fault);
                tracing::warn!(id = &*record.id, node, %error, "a node did not answer");
                if tried.is_some() {
                    return busy.ok_or_else(|| refused(NO_OTHER, &model));
                }
            }
        }
        tried = Some(to.node);
    }
}

const NO_OTHER: Refusal =
    Refusal::Unavailable { reason: Unavailable::NoOtherReplica, retry_after_secs: Some(2) };

/// Waits for the head of the answer. There is no time-out on a whole answer, which may take long;
/// the wait ends when the node itself is lost, or when a stream stays silent (requirement 70).
async fn send(app: &App, to: &Forward<'_>, asked: &Asked) -> Result<Response<Incoming>, Fault> {
    let path = asked.surface.path;
    let url = match &asked.query {
        Some(query) => format!("{}{path}?{query}", to.url),
        None => format!("{}{path}", to.url),
    };
    let mut sent = pin!(app.client.post(&url, asked.headers.clone(), asked.body.clone()));
    let begun = app.now();
    let idle_ms = app.config.gateway.idle_timeout_secs.saturating_mul(1000);
    loop {
        if let Ok(answer) = timeout(LOOK, &mut sent).await {
            return answer;
        }
        if *app.cut.borrow() {
            return Err(Fault::Stopped);
        }
        let now = app.now();
        let fleet = app.fleet.load();
        if fleet.nodes.get(to.node).is_none_or(|node| node.standing(now) == Standing::Lost) {
            return Err(Fault::Lost);
        }
        if asked.is_stream && now.since_ms(begun) >= idle_ms {
            return Err(Fault::Silent);
        }
    }
}

/// Hands an upstream's answer to the client.
fn relay(app: &App, surface: &'static Surface, answered: Answered, mut record: Record) -> Reply {
    let (head, body) = answered.upstream.into_parts();
    record.node = Some(answered.node);
    record.status = head.status.as_u16();
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_sse = content_type.is_some_and(|t| t.starts_with(b"text/event-stream"));
    // An encoded stream shows its end to the client alone.
    let is_plain = !head.headers.contains_key(CONTENT_ENCODING);
    let stream_of = (is_sse && is_plain).then_some(surface.dialect);
    record.meter.begin(surface, record.status, stream_of.is_some());
    let idle = app.config.gateway.idle_timeout();
    let relay = Relay::new(body, stream_of, idle, app.cut.subscribe(), record, answered.ticket);
    let mut reply = Response::new(ReplyBody::Relayed(Box::new(relay)));
    *reply.status_mut() = head.status;
    *reply.headers_mut() = reply_headers(head.headers);
    reply
}

fn refuse(error: &ErrorBody, mut record: Record) -> Reply {
    record.status = error.status;
    record.end = End::Refused(error.code.unwrap_or("invalid_request"));
    error_reply(record.dialect(), &record.id, error)
}

/// A decision against forwarding, in the client's words.
fn refused(refusal: Refusal, model: &str) -> ErrorBody {
    let Refusal::Unavailable { reason, retry_after_secs } = refusal else {
        return ErrorBody::model_not_found(model);
    };
    let (code, why) = match reason {
        Unavailable::Unheard => ("node_unavailable", "may be on a node that has not answered yet"),
        Unavailable::NodesDown => ("node_unavailable", "is on nodes that do not answer now"),
        Unavailable::NoOtherReplica => ("node_unavailable", "is on a node that did not answer"),
        Unavailable::NotReady(status) => match status {
            ModelStatus::Absent => ("not_loaded", "is known and not loaded; load it first"),
            ModelStatus::Downloading => ("loading", "is being downloaded"),
            ModelStatus::Loading => ("loading", "is loading"),
            ModelStatus::Ready => ("loading", "is about to be ready"),
            ModelStatus::Draining => ("draining", "is being taken out of service"),
            ModelStatus::Failed => ("load_failed", "could not be loaded; its node says why"),
            ModelStatus::Restarting => ("restarting", "is being started again after a fault"),
        },
    };
    let shown: String = model.chars().take(100).collect();
    let retry = retry_after_secs.map_or(Retry::Never, Retry::After);
    let message = format!("the model `{shown}` {why}");
    let (kind, param, code) = ("server_error", Some("model".to_owned()), Some(code));
    ErrorBody { status: 503, message, kind, param, code, retry }
}
