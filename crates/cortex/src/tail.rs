//! Whether an SSE stream came to its proper end, seen from its last bytes alone.

/// A last frame longer than this is not recognised; terminal events are far shorter.
const KEPT_BYTES: usize = 1024;

/// The last bytes of a stream. One buffer, filled once; no allocation a chunk.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    /// Bytes before these were let go.
    is_cut: bool,
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
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        if chunk.len() >= KEPT_BYTES {
            self.is_cut |= chunk.len() > KEPT_BYTES || !self.bytes.is_empty();
            self.bytes.clear();
            self.bytes.extend_from_slice(&chunk[chunk.len() - KEPT_BYTES..]);
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(2 * KEPT_BYTES);
        }
        if self.bytes.len() + chunk.len() > 2 * KEPT_BYTES {
            self.is_cut = true;
            self.bytes.drain(..self.bytes.len() - KEPT_BYTES);
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// `is_last` says whether a closed frame (without its blank line) ends a stream of the dialect;
    /// `is_last_unclosed` the same of a frame that may be half written.
    pub(crate) fn ending(
        &self,
        is_last: fn(&[u8]) -> bool,
        is_last_unclosed: fn(&[u8]) -> bool,
    ) -> Ending {
        let is_closed = self.bytes.is_empty()
            || self.bytes.ends_with(b"\n\n")
            || self.bytes.ends_with(b"\r\n\r\n");
        let frame = self.last_frame();
        match (is_closed, frame) {
            (true, Some(frame)) if is_last(frame) => Ending::Whole,
            (false, Some(frame)) if is_last_unclosed(frame) => Ending::Unclosed,
            (true, _) => Ending::BetweenFrames,
            (false, _) => Ending::InFrame,
        }
    }

    /// The last frame, if all of it is kept.
    fn last_frame(&self) -> Option<&[u8]> {
        let end = self.bytes.iter().rposition(|b| !matches!(b, b'\r' | b'\n'))? + 1;
        let text = &self.bytes[..end];
        let after = |blank: &[u8]| {
            text.windows(blank.len()).rposition(|w| w == blank).map(|at| at + blank.len())
        };
        match after(b"\n\n").max(after(b"\r\n\r\n")) {
            Some(start) => Some(&text[start..]),
            None if self.is_cut => None,
            None => Some(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, KEPT_BYTES, Tail};
    use crate::surface::CHAT_COMPLETIONS;

    fn ending(chunks: &[&[u8]]) -> Ending {
        let mut tail = Tail::default();
        for chunk in chunks {
            tail.push(chunk);
        }
        tail.ending(CHAT_COMPLETIONS.is_last, CHAT_COMPLETIONS.is_last_unclosed)
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
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(&[b'x'; 700]);
        }
        assert_eq!(tail.bytes.capacity(), 2 * KEPT_BYTES);
    }
}
