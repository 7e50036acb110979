//! One inference request: read the body, route, wait for the model where it is cold, forward.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use fleet::{Link, Tick};
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use wire::{Dialect, ErrorBody};

use crate::app::App;
use crate::forward::{reply_headers, request_headers};
use crate::front::Ticket;
use crate::hold::{self, Held};
use crate::kept::Keep;
use crate::pursue::{Pursued, first_try, pursue};
use crate::read::{Unread, read};
use crate::record::{End, Record};
use crate::relay::{Origin, Relay};
use crate::reply::{Reply, ReplyBody, error_reply};
use crate::surface::Surface;
use crate::upstream::Answer;

/// A request as it is sent on.
pub(crate) struct Asked {
    pub surface: &'static Surface,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub is_stream: bool,
    /// The model's own name.
    pub model: Arc<str>,
    /// The right to send the body more than once.
    pub keep: Option<Keep>,
    /// How long it may wait for its model.
    pub deadline: Tick,
    /// Nodes that broke under it.
    broken: AtomicU32,
    beginnings: OnceLock<Vec<Link>>,
}

impl Asked {
    /// What the prompt begins with; worked out when there is a choice between nodes to be made.
    pub(crate) fn chain(&self) -> &[Link] {
        self.beginnings.get_or_init(|| {
            let beginnings = self.surface.dialect.beginnings(&self.body).into_iter();
            beginnings.map(|(digest, bytes)| Link { digest, bytes }).collect()
        })
    }

    /// One more node broke under this request; how many did. What breaks a node may break each.
    pub(crate) fn has_broken(&self) -> u32 {
        self.broken.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The head of a node's answer; the ticket counts the request there.
pub(crate) struct Answered {
    pub upstream: Response<Answer>,
    pub node: String,
    pub ticket: Ticket,
}

/// Answers one inference request; `record` tells its story whatever happens.
pub(crate) async fn generate(
    app: &Arc<App>,
    surface: &'static Surface,
    request: Request<Incoming>,
    mut record: Record,
) -> Reply {
    let query = request.uri().query().map(str::to_owned);
    let (head, body) = request.into_parts();
    let (body, peek) = match read(app, surface, &head.headers, body, &mut record).await {
        Ok(read) => read,
        Err(Unread { error, close }) => {
            let mut reply = refuse(&error, record);
            if close {
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return reply;
        }
    };
    if let Err(error) = record.meter.reserve(app, surface, &body, &peek).await {
        return refuse(&error, record);
    }
    let is_stream = peek.stream;
    let identity = app.identities.of(&head.headers);
    let mut headers = request_headers(head.headers, &record.id, identity);
    let body = if is_stream { detach(&mut headers, body) } else { body };
    record.continue_trace(&mut headers);
    let settings = app.settings.load();
    let gateway = &settings.config.gateway;
    let asked = Arc::new(Asked {
        surface,
        query,
        headers,
        keep: app.kept.take(body.len(), gateway.retry_buffer_mb as usize * (1 << 20)),
        deadline: Tick(app.now().0.saturating_add(gateway.hold_timeout_secs * 1000)),
        model: Arc::from(record.model.as_deref().unwrap_or_default()),
        body,
        is_stream,
        broken: AtomicU32::new(0),
        beginnings: OnceLock::new(),
    });
    drop(settings);
    match first_try(app, &asked, &mut record).await {
        Pursued::Answered(answered) => relay(app, &asked, answered, record),
        Pursued::Refused(error) => refuse(&error, record),
        Pursued::Cold(said) if !is_stream => match pursue(app, &asked, said, &mut record).await {
            Ok(answered) => relay(app, &asked, answered, record),
            Err(error) => refuse(&error, record),
        },
        Pursued::Cold(said) => held(app, asked, said, record).await,
    }
}

/// A stream whose model is cold: an answer within a second is an ordinary one, and then the client
/// hears how the load goes.
async fn held(
    app: &Arc<App>,
    asked: Arc<Asked>,
    said: Option<Box<Answered>>,
    record: Record,
) -> Reply {
    let mut job = hold::begin(app, &asked, said, record);
    match tokio::time::timeout(hold::FIRST_WORD, &mut job).await {
        Ok((Ok(answered), record)) => relay(app, &asked, answered, record),
        Ok((Err(error), record)) => refuse(&error, record),
        Err(_) => {
            let held = Held::new(Arc::clone(app), asked, job);
            let mut reply = Response::new(ReplyBody::Held(Box::new(held)));
            for (name, value) in [
                (CONTENT_TYPE, "text/event-stream"),
                (http::header::CACHE_CONTROL, "no-cache"),
                (http::header::HeaderName::from_static("x-accel-buffering"), "no"),
            ] {
                reply.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            reply
        }
    }
}

/// Bytes of a request are parts of the buffer that its connection reads into, which needs another
/// one as long as they are kept: of a stream that is long, and small ones are copied instead.
fn detach(headers: &mut HeaderMap, body: Bytes) -> Bytes {
    const SMALL_BYTES: usize = 4 << 10;
    if body.len() > SMALL_BYTES {
        return body;
    }
    for value in headers.values_mut() {
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
    Bytes::copy_from_slice(&body)
}

/// Hands an upstream's answer to the client.
fn relay(app: &Arc<App>, asked: &Arc<Asked>, answered: Answered, record: Record) -> Reply {
    let status = answered.upstream.status();
    let (relay, headers) = relayed(app, asked, answered, record);
    let mut reply = Response::new(ReplyBody::Relayed(Box::new(relay)));
    *reply.status_mut() = status;
    *reply.headers_mut() = reply_headers(headers);
    reply
}

/// An upstream's body on its way, and its headers.
pub(crate) fn relayed(
    app: &Arc<App>,
    asked: &Arc<Asked>,
    answered: Answered,
    mut record: Record,
) -> (Relay, HeaderMap) {
    let Answered { upstream, node, ticket } = answered;
    record.node = Some(node);
    record.status = upstream.status().as_u16();
    let stream_of = stream_of(asked, &upstream);
    record.meter.begin(asked.surface, record.status, stream_of.is_some());
    let stamp = crate::resume::stamp(&upstream);
    let origin = Origin { app: Arc::clone(app), asked: Arc::clone(asked), ticket };
    let (head, body) = upstream.into_parts();
    (Relay::new(body, stream_of, stamp, origin, record), head.headers)
}

/// The dialect of a stream whose end can be seen: an encoded one shows it to the client alone.
pub(crate) fn stream_of(asked: &Asked, upstream: &Response<Answer>) -> Option<Dialect> {
    let head = upstream.headers();
    let content_type = head.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_sse = content_type.is_some_and(|t| t.starts_with(b"text/event-stream"));
    (is_sse && !head.contains_key(CONTENT_ENCODING)).then_some(asked.surface.dialect)
}

fn refuse(error: &ErrorBody, mut record: Record) -> Reply {
    record.status = error.status;
    record.end = End::Refused(error.code.unwrap_or("invalid_request"));
    error_reply(record.dialect(), &record.id, error)
}
