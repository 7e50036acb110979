//! Whether an SSE stream came to its proper end, seen from its last frame.

use wire::Dialect;

/// The last bytes that are kept of a stream, where events have their numbers.
const KEPT_BYTES: usize = 1024;

/// Of the last frame its beginning is kept, however long it is: terminal events of some dialects
/// hold the whole answer and are told by their name, which comes first.
const HEAD_BYTES: usize = 256;

/// The end of a stream. Two buffers at most, filled once; no allocation a chunk.
#[derive(Debug)]
pub(crate) struct Tail {
    dialect: Dialect,
    /// Empty where nobody will ask for it.
    bytes: Vec<u8>,
    head: Vec<u8>,
    /// Line ends since the last other byte; two of them close a frame.
    line_ends: u8,
}

/// How a stream stood when its bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its terminal event is there, closed by a blank line.
    Whole,
    /// Its terminal event is there; the blank line is not.
    Unclosed,
    /// The terminal event is missing and the last frame is closed.
    BetweenFrames,
    /// The terminal event is missing and a frame is half written.
    InFrame,
}

impl Tail {
    pub(crate) fn of(dialect: Dialect) -> Tail {
        let bytes = Vec::with_capacity(if dialect.numbers_events() { 2 * KEPT_BYTES } else { 0 });
        Tail { dialect, bytes, head: Vec::with_capacity(HEAD_BYTES), line_ends: 2 }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        if self.dialect.numbers_events() {
            self.keep(chunk);
        }
        self.follow(chunk);
    }

    /// The last bytes where events have numbers, a kilobyte of them at least if there were so many.
    pub(crate) fn seen(&self) -> &[u8] {
        &self.bytes
    }

    /// How the stream stands.
    pub(crate) fn ending(&self) -> Ending {
        let is_closed = self.line_ends >= 2;
        let frame = self.head.trim_ascii_end();
        match (is_closed, self.dialect.is_last(frame, is_closed)) {
            (true, true) => Ending::Whole,
            (false, true) => Ending::Unclosed,
            (true, false) => Ending::BetweenFrames,
            (false, false) => Ending::InFrame,
        }
    }

    fn keep(&mut self, chunk: &[u8]) {
        if chunk.len() >= KEPT_BYTES {
            self.bytes.clear();
            self.bytes.extend_from_slice(&chunk[chunk.len() - KEPT_BYTES..]);
            return;
        }
        if self.bytes.len() + chunk.len() > 2 * KEPT_BYTES {
            self.bytes.drain(..self.bytes.len() - KEPT_BYTES);
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// Line by line, so that the length of a line costs one search.
    fn follow(&mut self, chunk: &[u8]) {
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (words, has_end) = match line.strip_suffix(b"\n") {
                Some(words) => (words, true),
                None => (line, false),
            };
            if words.iter().any(|byte| *byte != b'\r') {
                if self.line_ends >= 2 {
                    self.head.clear();
                }
                self.line_ends = 0;
            }
            let room = HEAD_BYTES - self.head.len();
            self.head.extend_from_slice(&line[..line.len().min(room)]);
            self.line_ends = self.line_ends.saturating_add(u8::from(has_end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, HEAD_BYTES, KEPT_BYTES, Tail};
    use wire::Dialect;

    fn ending(chunks: &[&[u8]]) -> Ending {
        let mut tail = Tail::of(Dialect::OpenaiChat);
        for chunk in chunks {
            tail.push(chunk);
        }
        tail.ending()
    }

    // Requirement 122
    #[test]
    fn the_ends_of_a_chat_stream() {
        let table: &[(&str, Ending)] = &[
            ("", Ending::BetweenFrames),
            ("data: {}\n\ndata: [DONE]\n\n", Ending::Whole),
            ("data: {}\r\n\r\ndata: [DONE]\r\n\r\n", Ending::Whole),
            ("data:[DONE]\n\n", Ending::Whole),
            ("data: {}\n\ndata: [DONE]", Ending::Unclosed),
            ("data: {}\n\ndata: [DONE]\n", Ending::Unclosed),
            ("data: {}\n\ndata: [DON", Ending::InFrame),
            ("data: {}\n\n", Ending::BetweenFrames),
            ("data: {}\n", Ending::InFrame),
            ("data: {\"choices\":[{\"delta\":{\"content\":\"data: [DONE]", Ending::InFrame),
            ("data: {\"x\":\"data: [DONE]\"}\n\n", Ending::BetweenFrames),
            ("data: {\"error\":{\"message\":\"m\"}}\n\n", Ending::Whole),
            ("data: {}\n\ndata: {\"error\":{\"message\":\"m\"}}\n\n", Ending::Whole),
            ("data: {}\n\ndata: {\"error\":{\"mess", Ending::InFrame),
            (": ping\n\n", Ending::BetweenFrames),
            (": ping\n\ndata: [DONE]\n\n", Ending::Whole),
        ];
        for (text, wanted) in table {
            assert_eq!(ending(&[text.as_bytes()]), *wanted, "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(ending(&bytes), *wanted, "{text:?}, byte by byte");
        }
    }

    #[test]
    fn the_end_is_seen_after_any_amount_of_text() {
        let long = vec![b'x'; 5 * KEPT_BYTES];
        for lengths in [1, 7, 900, KEPT_BYTES, 5 * KEPT_BYTES] {
            let mut chunks: Vec<&[u8]> = long.chunks(lengths).collect();
            assert_eq!(ending(&chunks), Ending::InFrame, "chunks of {lengths}");
            chunks.push(b"\n\ndata: [DONE]\n\n");
            assert_eq!(ending(&chunks), Ending::Whole, "chunks of {lengths}");
        }
    }

    #[test]
    fn a_tail_never_grows() {
        for (dialect, kept) in [(Dialect::OpenaiResponses, 2 * KEPT_BYTES), (Dialect::Anthropic, 0)]
        {
            let mut tail = Tail::of(dialect);
            for size in 0..3 * KEPT_BYTES {
                tail.push(&vec![b'x'; size]);
            }
            assert_eq!(tail.bytes.capacity(), kept);
            assert_eq!(tail.head.len(), HEAD_BYTES);
        }
    }

    #[test]
    fn a_terminal_event_that_holds_the_whole_answer_is_known() {
        let answer = "x".repeat(10 * KEPT_BYTES);
        let long = format!(
            "event: response.output_text.delta\ndata: {{}}\n\n\
             event: response.completed\ndata: {{\"{answer}\"}}\n\n"
        );
        for size in [1, 100, 3 * KEPT_BYTES, long.len()] {
            let mut tail = Tail::of(Dialect::OpenaiResponses);
            long.as_bytes().chunks(size).for_each(|chunk| tail.push(chunk));
            assert_eq!(tail.ending(), Ending::Whole, "chunks of {size}");
            let mut cut = Tail::of(Dialect::OpenaiResponses);
            long.as_bytes()[..long.len() - 9].chunks(size).for_each(|chunk| cut.push(chunk));
            assert_eq!(cut.ending(), Ending::InFrame, "chunks of {size}");
        }
    }
}
