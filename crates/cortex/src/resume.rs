//! Streams that can go on elsewhere: what a node tells beside the client's frames.
//!
//! A node that is asked for it by [`MARKS`] ends every piece of a stream with a comment that holds
//! the token ids behind it, `: tokens 5 7|9`, a bar between the steps. The answer's head has a
//! stamp, in words that only nodes understand. Pieces go to the client without the comments and
//! each as a whole: a node that dies leaves no half piece behind. With stamp and ids another node
//! takes the stream up where the last whole piece ended.
//!
//! `: lost` comes before frames that end a stream for a reason that another node does not share.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::Incoming;
use serde::Serialize;

use crate::front::Claim;
use crate::generate::Answered;
use crate::pursue::ask;
use crate::relay::Origin;

/// Asks a node for marks.
pub(crate) const MARKS: HeaderName = HeaderName::from_static(control::MARKS_HEADER);
/// The stamp of an answer, from a node.
const STAMP: HeaderName = HeaderName::from_static(control::STAMP_HEADER);
/// How many bytes of a body are the client's, to a node; what was said so far follows them.
const RESUME: HeaderName = HeaderName::from_static(control::RESUME_HEADER);

/// A piece that grows beyond this has no mark, and the stream is passed on as it comes.
const PIECE_LIMIT_BYTES: usize = 1 << 20;

/// What came of a piece of a marked stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Whole pieces, for the client.
    Said(Bytes),
    /// The rest of a piece is still on its way.
    Nothing,
    /// The node gives the stream up; these frames tell the client if nobody takes it over.
    Lost(Bytes),
}

/// A marked stream.
#[derive(Debug)]
pub(crate) struct Marked {
    stamp: String,
    /// The ids so far, in the pieces in which they came.
    batches: Vec<Vec<u32>>,
    pending: BytesMut,
    is_given_up: bool,
}

impl Marked {
    pub(crate) fn new(stamp: String) -> Marked {
        Marked { stamp, batches: Vec::new(), pending: BytesMut::new(), is_given_up: false }
    }

    /// A stream that begins where this one stands.
    pub(crate) fn copy(&self) -> Marked {
        let (stamp, batches) = (self.stamp.clone(), self.batches.clone());
        Marked { stamp, batches, pending: BytesMut::new(), is_given_up: self.is_given_up }
    }

    /// Whether another node could go on with it.
    pub(crate) fn is_resumable(&self) -> bool {
        !self.stamp.is_empty() && !self.is_given_up
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, data: Bytes) -> Heard {
        if self.is_given_up {
            return Heard::Said(data);
        }
        let bytes = match self.pending.is_empty() {
            true => data,
            false => {
                self.pending.extend_from_slice(&data);
                self.pending.split().freeze()
            }
        };
        let (mut said, mut begin, mut at) = (Vec::new(), 0, 0);
        while let Some(length) = frame_length(&bytes[at..]) {
            let frame = &bytes[at..at + length];
            if frame.starts_with(b": lost") {
                return Heard::Lost(last_words(&bytes.slice(at + length..)));
            }
            if let Some(ids) = frame.strip_prefix(b": tokens") {
                said.push(bytes.slice(begin..at));
                self.batches.extend(batches(ids));
                begin = at + length;
            }
            at += length;
        }
        self.pending.extend_from_slice(&bytes[begin..]);
        if self.pending.len() > PIECE_LIMIT_BYTES {
            self.is_given_up = true;
            said.push(self.pending.split().freeze());
        }
        said.retain(|piece| !piece.is_empty());
        match said.len() {
            0 => Heard::Nothing,
            1 => Heard::Said(said.swap_remove(0)),
            _ => Heard::Said(Bytes::from(said.concat())),
        }
    }

    /// What is left of a piece whose mark never came.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.pending.split().freeze()
    }
}

/// The length of the first frame, with the blank line that ends it.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 2)
}

fn batches(ids: &[u8]) -> Vec<Vec<u32>> {
    let text = String::from_utf8_lossy(ids);
    let batch =
        |part: &str| part.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect();
    text.split('|').map(batch).collect()
}

/// Frames without the mark behind them.
fn last_words(bytes: &Bytes) -> Bytes {
    let mut at = 0;
    while let Some(length) = frame_length(&bytes[at..]) {
        if bytes[at..].starts_with(b": tokens") {
            break;
        }
        at += length;
    }
    bytes.slice(..at)
}

/// The stamp of an answer that is marked.
pub(crate) fn stamp(upstream: &Response<Incoming>) -> Option<String> {
    Some(upstream.headers().get(STAMP)?.to_str().ok()?.to_owned())
}

/// What a node is told of a stream that it takes over.
#[derive(Serialize)]
struct SoFar<'a> {
    stamp: &'a str,
    batches: &'a [Vec<u32>],
}

/// Has another node take over the stream; none when there is none, or it does not want to.
///
/// Without `marked` nothing of the answer has reached the client, and the request is sent anew.
pub(crate) async fn take_over(origin: Origin, marked: Option<Marked>) -> Option<Answered> {
    let Origin { app, asked, ticket } = origin;
    let tried = ticket.place;
    drop(ticket);
    let Claim::Forward(to) = app.claim(&asked.model, asked.chain(&app), Some(tried)) else {
        return None;
    };
    let Some(marked) = marked.filter(|marked| !marked.batches.is_empty()) else {
        let answered = ask(&app, &asked, to, HeaderMap::new(), None).await.ok()?;
        return (answered.upstream.status() == 200).then_some(answered);
    };
    let so_far = SoFar { stamp: &marked.stamp, batches: &marked.batches };
    let suffix = serde_json::to_vec(&so_far).ok()?;
    let length = HeaderValue::from(asked.body.len());
    let more = HeaderMap::from_iter([(RESUME, length)]);
    let answered = ask(&app, &asked, to, more, Some(&suffix)).await.ok()?;
    // A node that does not know how would begin anew.
    (answered.upstream.status() == 200 && stamp(&answered.upstream).is_some()).then_some(answered)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "data: {}\n\n: tokens\n\n: keep-alive\n\n: tokens\n\n\
                          data: {\"a\":\": tokens 3\\n\\n\"}\n\n\
                          data: {\"b\":1}\n\n: tokens 5 7|9\n\n\
                          data: [DONE]\n\n: tokens 2\n\n";

    fn told(heard: Heard) -> Vec<u8> {
        match heard {
            Heard::Said(bytes) => bytes.to_vec(),
            Heard::Nothing => Vec::new(),
            Heard::Lost(_) => panic!("it is not lost"),
        }
    }

    proptest! {
        #[test]
        fn marks_are_taken_out_however_the_stream_is_cut(
            sizes in prop::collection::vec(1usize..50, 1..20),
        ) {
            let mut marked = Marked::new("s".to_owned());
            let (mut rest, mut said) = (STREAM.as_bytes(), Vec::new());
            for size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                said.extend(told(marked.push(Bytes::copy_from_slice(piece))));
                rest = after;
                if rest.is_empty() { break; }
            }
            let frames = STREAM.split_inclusive("\n\n");
            let wanted: String = frames.filter(|frame| !frame.starts_with(": tokens")).collect();
            prop_assert_eq!(String::from_utf8_lossy(&said), wanted);
            let ids: Vec<Vec<u32>> = vec![vec![], vec![], vec![5, 7], vec![9], vec![2]];
            prop_assert_eq!(&marked.batches, &ids);
            prop_assert!(marked.rest().is_empty());
        }
    }

    #[test]
    fn a_piece_without_its_mark_is_kept_back() {
        let mut marked = Marked::new("s".to_owned());
        assert_eq!(
            marked.push(Bytes::from_static(b"data: 1\n\n: tokens 1\n\ndata: 2\n\n")),
            Heard::Said(Bytes::from_static(b"data: 1\n\n"))
        );
        assert_eq!(marked.rest(), "data: 2\n\n");
    }

    #[test]
    fn a_lost_stream_has_last_words() {
        let mut marked = Marked::new("s".to_owned());
        let heard = marked.push(Bytes::from_static(b": lost\n\ndata: {\"error\"}\n\n: tokens\n\n"));
        assert_eq!(heard, Heard::Lost(Bytes::from_static(b"data: {\"error\"}\n\n")));
    }

    #[test]
    fn a_stream_that_never_marks_is_passed_on() {
        let mut marked = Marked::new("s".to_owned());
        let long = Bytes::from(vec![b'x'; PIECE_LIMIT_BYTES]);
        assert_eq!(marked.push(long.clone()), Heard::Nothing);
        let Heard::Said(all) = marked.push(Bytes::from_static(b"y")) else { panic!("passed on") };
        assert_eq!(all.len(), long.len() + 1);
        assert!(!marked.is_resumable());
    }
}
