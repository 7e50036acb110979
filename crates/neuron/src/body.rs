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
        // A client that asks first has sent nothing yet; to read would be to tell it to begin.
        if !headers.contains_key(header::EXPECT) {
            discard(body, limit).await;
        }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::stream;
    use http::HeaderValue;

    use super::*;

    /// Whether a body of 9 bytes, over a limit of 8, is read before it is refused.
    async fn is_read(headers: &HeaderMap) -> bool {
        let read_from = Arc::new(AtomicBool::new(false));
        let reads = Arc::clone(&read_from);
        let pieces = stream::once(async move {
            reads.store(true, Ordering::Relaxed);
            Ok::<_, Infallible>("123456789")
        });
        let refused = read(headers, Body::from_stream(pieces), 8).await;
        assert_eq!(refused, Err(BodyError::TooLarge));
        read_from.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_client_that_asks_first_is_refused_before_it_sends() {
        // Requirement 116.
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(9));
        assert!(is_read(&headers).await, "else it would find its connection reset");
        headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        assert!(!is_read(&headers).await);
    }
}
