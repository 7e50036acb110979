//! Reading a request's body under limits.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;

/// A body must have arrived by then (requirement 128).
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the rest of a refused body is taken in, so that a client that only reads after it has
/// written everything gets its answer instead of a reset connection.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

const FORM: &str = "application/x-www-form-urlencoded";

/// Why a body was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// 415: the body is something other than plain JSON; this is what it says it is.
    NotJson(String),
    /// 413: it is larger than the limit.
    TooLarge,
    /// 408: it did not arrive in time.
    TooSlow,
    /// 400: the connection broke, or the chunks are malformed.
    Broken,
}

/// The whole body of a request that says it is JSON, or says nothing.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Bytes, BodyError> {
    check_type(headers)?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced = length.and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
    if announced > limit as u64 {
        discard(body, limit).await;
        return Err(BodyError::TooLarge);
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, collect(body, limit)).await;
    read.unwrap_or(Err(BodyError::TooSlow))
}

fn check_type(headers: &HeaderMap) -> Result<(), BodyError> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(kind) = text(header::CONTENT_TYPE) {
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // What curl says of every body that it is given with `-d`. A page in a browser may say the
        // same of a body for any address, without asking first; those come with an origin.
        let is_curl = essence == FORM && !headers.contains_key(header::ORIGIN);
        if essence != "application/json" && !is_curl {
            return Err(BodyError::NotJson(kind.into_owned()));
        }
    }
    match text(header::CONTENT_ENCODING) {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
            Err(BodyError::NotJson(format!("application/json in {coding} encoding")))
        }
        _ => Ok(()),
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            discard(body, limit).await;
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

async fn discard(mut body: Body, limit: usize) {
    let drained = async {
        let mut left = 4 * limit;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, drained).await;
}
