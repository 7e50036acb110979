//! Streams that can go on elsewhere: what a node tells beside the client's frames.
//!
//! A node that is asked for it by [`MARKS`] ends every piece of a stream with a comment that holds
//! the token ids behind it, `: tokens 5 7|9`, a bar between the steps. The answer's head has a
//! stamp, in words that only nodes understand. Pieces go to the client without the comments and
//! each as a whole: a node that dies leaves no half piece behind. With stamp and ids another node
//! takes the stream up where the last whole piece ended.
//!
//! `: lost` comes before frames that end a stream for a reason that another node does not share.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fleet::{Outcome, Tick};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde::{Serialize, Serializer};

use crate::app::App;
use crate::front::{Claim, To};
use crate::generate::{Answered, Asked};
use crate::pursue::{ask, is_gone};
use crate::relay::Origin;
use crate::upstream::Answer;

/// Asks a node for marks.
pub(crate) const MARKS: HeaderName = HeaderName::from_static(control::MARKS_HEADER);
/// The stamp of an answer, from a node.
const STAMP: HeaderName = HeaderName::from_static(control::STAMP_HEADER);
/// How many bytes of a body are the client's, to a node; what was said so far follows them.
const RESUME: HeaderName = HeaderName::from_static(control::RESUME_HEADER);

/// How long a stream waits for a node that is about to have its model.
const PATIENCE_MS: u64 = 30_000;
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
    batches: Batches,
    pending: BytesMut,
    is_given_up: bool,
}

/// The ids so far, in the pieces in which they came; a long answer has tens of thousands.
#[derive(Clone, Debug, Default)]
struct Batches {
    ids: Vec<u32>,
    /// Where each piece ends.
    ends: Vec<u32>,
}

impl Batches {
    /// Takes what stands behind a mark: ids with blanks between them, and bars between pieces.
    fn read(&mut self, words: &[u8]) {
        let text = String::from_utf8_lossy(words);
        for piece in text.split('|') {
            self.ids.extend(piece.split_ascii_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            self.ends.push(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
        }
    }

    fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.ids[begin as usize..*end as usize])
    }
}

impl Serialize for Batches {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl Marked {
    pub(crate) fn new(stamp: String) -> Marked {
        let (batches, pending) = (Batches::default(), BytesMut::new());
        Marked { stamp, batches, pending, is_given_up: false }
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
                self.batches.read(ids);
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
    memchr::memmem::find(bytes, b"\n\n").map(|at| at + 2)
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
pub(crate) fn stamp(upstream: &Response<Answer>) -> Option<String> {
    Some(upstream.headers().get(STAMP)?.to_str().ok()?.to_owned())
}

/// What a node is told of a stream that it takes over.
#[derive(Serialize)]
struct SoFar<'a> {
    stamp: &'a str,
    batches: &'a Batches,
}

/// Has another node take over the stream; none when there is none, or it does not want to.
///
/// Without `marked` nothing of the answer has reached the client, and the request is sent anew.
pub(crate) async fn take_over(origin: Origin, marked: Option<Marked>) -> Option<Answered> {
    let Origin { app, asked, ticket } = origin;
    let lost = ticket.place;
    drop(ticket);
    let marked = marked.filter(|marked| !marked.batches.ends.is_empty());
    let deadline = asked.deadline.min(Tick(app.now().0 + PATIENCE_MS));
    // The first one may have been started anew a moment ago, without the model.
    for _ in 0..2 {
        let to = another(&app, &asked, lost, deadline).await?;
        let place = to.place;
        if let Some(answered) = go_on(&app, &asked, to, marked.as_ref()).await {
            return Some(answered);
        }
        if !is_gone(&app, place, &asked.model).await
            || app.wait_for(&asked.model, Some(place), deadline).await != Some(Outcome::Ready)
        {
            return None;
        }
    }
    None
}

/// A node besides the one that was lost, waited for where the model is on its way there.
async fn another(app: &Arc<App>, asked: &Asked, lost: usize, deadline: Tick) -> Option<To> {
    if let Claim::Forward(to) = app.claim(asked, Some(lost)) {
        return Some(to);
    }
    let place = app.place_to_come(&asked.model, lost)?;
    app.wait_for(&asked.model, Some(place), deadline).await;
    match app.claim(asked, Some(lost)) {
        Claim::Forward(to) => Some(to),
        Claim::Cold | Claim::Refuse(_) => None,
    }
}

/// Asks a node for the rest of a stream, or for all of it where nothing of it is known.
async fn go_on(app: &Arc<App>, asked: &Asked, to: To, marked: Option<&Marked>) -> Option<Answered> {
    let (more, suffix) = match marked {
        None => (HeaderMap::new(), None),
        Some(Marked { stamp, batches, .. }) => {
            let suffix = serde_json::to_vec(&SoFar { stamp, batches }).ok()?;
            let length = HeaderValue::from(asked.body.len());
            (HeaderMap::from_iter([(RESUME, length)]), Some(suffix))
        }
    };
    let answered = ask(app, asked, to, more, suffix.as_deref()).await.ok()?;
    // A node that does not know how to go on would begin anew.
    let knows_how = marked.is_none() || stamp(&answered.upstream).is_some();
    (answered.upstream.status() == 200 && knows_how).then_some(answered)
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
            let ids = serde_json::to_string(&marked.batches).expect("it is plain");
            prop_assert_eq!(ids, "[[],[],[5,7],[9],[2]]");
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
