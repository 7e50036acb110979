//! Answers that cortex makes itself, and the body type of every answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use serde::Serialize;
use wire::{Dialect, ErrorBody};

use crate::hold::Held;
use crate::relay::Relay;

/// Tells SDKs whether to try again, whatever the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What ends a connection in the middle of a body.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Every answer.
pub(crate) type Reply = Response<ReplyBody>;

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// Made here, at once.
    Whole(Full<Bytes>),
    /// An upstream's, as it comes.
    Relayed(Box<Relay>),
    /// Begun before there was an answer.
    Held(Box<Held>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            ReplyBody::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            ReplyBody::Relayed(relay) => Pin::new(relay.as_mut()).poll_frame(cx),
            ReplyBody::Held(held) => Pin::new(held.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Whole(body) => body.is_end_stream(),
            ReplyBody::Relayed(relay) => relay.is_end_stream(),
            ReplyBody::Held(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(body) => body.size_hint(),
            ReplyBody::Relayed(relay) => relay.size_hint(),
            ReplyBody::Held(_) => SizeHint::default(),
        }
    }
}

/// An error as a whole answer, with what tells a client whether to come back (requirements 5, 132).
pub(crate) fn error_reply(dialect: Dialect, id: &str, error: &ErrorBody) -> Reply {
    let (status, body) = dialect.error(error, id);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = bytes_reply(status, "application/json", body.into());
    // As a node says it, so that clients need not know who refused.
    let retry = if error.should_retry() { "true" } else { "false" };
    reply.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(retry));
    if let Some(secs) = error.retry_after_secs() {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    reply
}

/// 405 with the methods that the path has.
pub(crate) fn wrong_method(
    dialect: Dialect,
    id: &str,
    method: &Method,
    allow: &'static str,
) -> Reply {
    let error = ErrorBody::method_not_allowed(method.as_str(), allow);
    let mut reply = error_reply(dialect, id, &error);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

/// A value as JSON.
pub(crate) fn json_reply<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => bytes_reply(status, "application/json", body.into()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            internal_error(Dialect::OpenaiChat, "")
        }
    }
}

/// The answer to a defect of ours; the log has the rest.
pub(crate) fn internal_error(dialect: Dialect, id: &str) -> Reply {
    let error = ErrorBody::internal("the gateway failed to answer; its log has the request id");
    error_reply(dialect, id, &error)
}

/// A body of any type.
pub(crate) fn bytes_reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(Full::new(body)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
