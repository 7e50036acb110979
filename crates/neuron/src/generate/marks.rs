//! Streams that can go on elsewhere: marks beside the frames, and answers that another node began.
//!
//! The gateway asks for marks by a header. Each piece of the stream is then followed by a comment
//! with its token ids, `: tokens 5 7|9`, a bar between the happenings; the head has a stamp. The
//! same request with stamp and ids is taken up where the last mark stood: the happenings are told
//! again to a new projector, which is not listened to, and then the engine goes on. Ids, counters
//! and words come out as if nothing had happened, in every dialect.

use std::fmt::Write;

use bytes::Bytes;
use dialog::{Event, FailureKind};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use wire::ErrorBody;

const MARKS: HeaderName = HeaderName::from_static(control::MARKS_HEADER);
const RESUME: HeaderName = HeaderName::from_static(control::RESUME_HEADER);
pub(super) const STAMP: HeaderName = HeaderName::from_static(control::STAMP_HEADER);

/// What another node needs besides request and tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Of the answer's ids.
    pub(super) nonce: String,
    /// Unix seconds.
    pub(super) created: u64,
    /// Of the draws, whether the request named it or not.
    pub(super) seed: u64,
    /// Of the ids of calls.
    pub(super) calls: String,
}

/// How far an answer was when its node was lost.
#[derive(Debug)]
pub(super) struct SoFar {
    pub(super) stamp: Stamp,
    /// The tokens of each happening; the first one is the answer's beginning and has none.
    pub(super) batches: Vec<Vec<u32>>,
}

/// As the gateway sends it.
#[derive(Deserialize)]
struct Suffix {
    stamp: String,
    batches: Vec<Vec<u32>>,
}

/// Whether marks are wanted.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    headers.contains_key(MARKS)
}

/// The client's own body, and what follows it.
pub(super) fn split(headers: &HeaderMap, body: Bytes) -> Result<(Bytes, Option<SoFar>), ErrorBody> {
    let Some(length) = headers.get(RESUME) else { return Ok((body, None)) };
    let wrong = || ErrorBody::invalid_request("what was said so far cannot be read");
    let length = length.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    let length = length.filter(|length| *length <= body.len()).ok_or_else(wrong)?;
    let suffix: Suffix = serde_json::from_slice(&body[length..]).map_err(|_| wrong())?;
    let stamp = serde_json::from_str(&suffix.stamp).map_err(|_| wrong())?;
    let so_far = SoFar { stamp, batches: suffix.batches };
    Ok((body.slice(..length), Some(so_far)))
}

impl Stamp {
    pub(super) fn header(&self) -> HeaderValue {
        let text = serde_json::to_string(self).unwrap_or_default();
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Marks one stream.
#[derive(Debug, Default)]
pub(super) struct Marks {
    ids: String,
    has_batch: bool,
    is_lost: bool,
}

impl Marks {
    /// Something happened to the answer.
    pub(super) fn saw(&mut self, tokens: &[u32], events: &[Event]) {
        if self.has_batch {
            self.ids.push('|');
        }
        self.has_batch = true;
        for token in tokens {
            // Writing to a string does not fail.
            let _ = write!(self.ids, " {token}");
        }
        self.is_lost |= events.iter().any(is_lost);
    }

    /// The piece with its mark.
    pub(super) fn mark(&mut self, mut frames: Vec<u8>) -> Vec<u8> {
        if self.is_lost {
            frames.splice(..0, *b": lost\n\n");
        }
        frames.extend_from_slice(b": tokens");
        frames.extend_from_slice(self.ids.as_bytes());
        frames.extend_from_slice(b"\n\n");
        *self = Self::default();
        frames
    }
}

/// Failures of this node, which another one does not share.
fn is_lost(event: &Event) -> bool {
    let Event::Failed(failure) = event else { return false };
    matches!(failure.kind, FailureKind::EngineFailed | FailureKind::Draining)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lists_what_happened_and_begins_anew() {
        let mut marks = Marks::default();
        marks.saw(&[], &[]);
        assert_eq!(marks.mark(b"data: a\n\n".to_vec()), b"data: a\n\n: tokens\n\n");
        marks.saw(&[5, 7], &[]);
        marks.saw(&[9], &[]);
        assert_eq!(marks.mark(Vec::new()), b": tokens 5 7| 9\n\n");
        let failed = dialog::Failure { kind: FailureKind::Draining, message: "m".into() };
        marks.saw(&[], &[Event::Failed(failed)]);
        assert_eq!(marks.mark(b"data: e\n\n".to_vec()), b": lost\n\ndata: e\n\n: tokens\n\n");
    }

    #[test]
    fn a_body_is_split_where_the_header_says() {
        let stamp = Stamp { nonce: "n".into(), created: 7, seed: u64::MAX, calls: "c".into() };
        let head = stamp.header();
        let suffix = serde_json::json!({"stamp": head.to_str().unwrap(), "batches": [[], [5, 7]]});
        let body = Bytes::from(format!("{{\"model\":1}}{suffix}"));
        let headers = HeaderMap::from_iter([(RESUME, HeaderValue::from(11))]);
        let (own, so_far) = split(&headers, body.clone()).unwrap();
        let so_far = so_far.unwrap();
        assert_eq!((&own[..], so_far.stamp), (&b"{\"model\":1}"[..], stamp));
        assert_eq!(so_far.batches, [vec![], vec![5, 7]]);
        assert!(split(&HeaderMap::new(), body.clone()).unwrap().1.is_none());
        for length in ["x", "9", "99999"] {
            let headers = HeaderMap::from_iter([(RESUME, HeaderValue::from_static(length))]);
            assert_eq!(split(&headers, body.clone()).unwrap_err().status, 400, "{length}");
        }
    }
}
