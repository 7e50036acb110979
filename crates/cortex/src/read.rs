//! Reads a request's body and what routing needs of it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;
use wire::{ErrorBody, Peek};

use crate::app::App;
use crate::record::Record;
use crate::surface::Surface;

/// Requirement 128.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request was not understood.
pub(crate) struct Unread {
    pub error: ErrorBody,
    /// The rest of the body is still on its way and nobody will read it.
    pub close: bool,
}

/// The body, under the model's own name, and what else routing and limits need.
pub(crate) async fn read(
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
    let limit = app.settings.load().config.gateway.body_limit_bytes();
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
    let mut peek = surface
        .dialect
        .peek(&body)
        .map_err(|error| Unread { error: ErrorBody::from(&error), close: false })?;
    let settings = app.settings.load();
    let id = settings.models.catalogue.id(&peek.model);
    // Requirement 44.
    let body = match id == peek.model {
        true => body,
        false => wire::renamed(&body, id).map_or(body, Bytes::from),
    };
    peek.model = id.to_owned();
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
