//! What an answer cost, read from its bytes as they pass.
//!
//! A gateway forwards answers and does not build them anew, but it has to know what they used. Of a
//! whole body and of each event of a stream, only the `usage` object is read, where the dialect has
//! it; text that looks like one is inside of a string, or deeper down, and does not count.

use dialog::Usage;
use memchr::{memchr, memmem};

use crate::dialect::{Dialect, UsageAt};

/// Bodies and events beyond this are not looked into.
const LIMIT_BYTES: usize = 8 << 20;

const COMMENT: &[u8] = b": usage ";

/// Follows one answer.
#[derive(Debug)]
pub struct Tally {
    dialect: Dialect,
    is_stream: bool,
    /// A body, or the line of a stream that has begun; no more than [`LIMIT_BYTES`].
    held: Vec<u8>,
    is_too_long: bool,
    usage: Option<Usage>,
    worded: u32,
}

impl Tally {
    /// Of a stream of events, or of one body.
    #[must_use]
    pub fn new(dialect: Dialect, is_stream: bool) -> Tally {
        let (held, is_too_long, usage, worded) = (Vec::new(), false, None, 0);
        Tally { dialect, is_stream, held, is_too_long, usage, worded }
    }

    /// The next bytes of the answer.
    pub fn push(&mut self, piece: &[u8]) {
        if self.is_stream {
            self.lines(piece);
        } else {
            self.hold(piece);
        }
    }

    /// Counts an event that carried words; the caller sees those before.
    pub fn saw_words(&mut self) {
        self.worded += 1;
    }

    /// Events that carried words: about as many as tokens, where nothing better is known.
    #[must_use]
    pub fn worded(&self) -> u32 {
        self.worded
    }

    /// What was said of the use so far; of a body, nothing before its end.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        if self.is_stream {
            return self.usage;
        }
        self.dialect.usage_in(&self.held, UsageAt::Body)
    }

    fn lines(&mut self, mut piece: &[u8]) {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end + 1);
            piece = rest;
            if self.held.is_empty() && !self.is_too_long {
                self.line(line);
                continue;
            }
            self.hold(line);
            let held = std::mem::take(&mut self.held);
            if !std::mem::take(&mut self.is_too_long) {
                self.line(&held);
            }
        }
        if !piece.is_empty() {
            self.hold(piece);
        }
    }

    fn hold(&mut self, piece: &[u8]) {
        if self.held.len() + piece.len() > LIMIT_BYTES {
            self.is_too_long = true;
            self.held = Vec::new();
        }
        if !self.is_too_long {
            self.held.extend_from_slice(piece);
        }
    }

    fn line(&mut self, line: &[u8]) {
        let told = if let Some(words) = line.strip_prefix(COMMENT) {
            read_comment(words)
        } else if let Some(json) = line.strip_prefix(b"data:") {
            self.dialect.usage_in(json, UsageAt::Event)
        } else {
            None
        };
        let Some(told) = told else { return };
        let known = self.usage.unwrap_or_default();
        // Counts only grow; an event that knows one side leaves the other as it was.
        self.usage = Some(Usage {
            prompt_tokens: known.prompt_tokens.max(told.prompt_tokens),
            completion_tokens: known.completion_tokens.max(told.completion_tokens),
            cached_tokens: known.cached_tokens.max(told.cached_tokens),
            reasoning_tokens: known.reasoning_tokens.max(told.reasoning_tokens),
        });
    }
}

/// A comment that tells a gateway what a stream has used; clients skip comments.
#[must_use]
pub fn usage_comment(usage: &Usage) -> String {
    let Usage { prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens } = usage;
    format!(
        ": usage prompt={prompt_tokens} completion={completion_tokens} cached={cached_tokens} \
         reasoning={reasoning_tokens}\n\n"
    )
}

fn read_comment(words: &[u8]) -> Option<Usage> {
    let mut usage = Usage::default();
    for word in std::str::from_utf8(words).ok()?.split_ascii_whitespace() {
        let (name, count) = word.split_once('=')?;
        let count = count.parse().ok()?;
        match name {
            "prompt" => usage.prompt_tokens = count,
            "completion" => usage.completion_tokens = count,
            "cached" => usage.cached_tokens = count,
            "reasoning" => usage.reasoning_tokens = count,
            _ => {}
        }
    }
    Some(usage)
}

/// The object of the last `"usage":` whose own object is closed by the last `depth` brackets of
/// `json`, so that it lies that deep.
///
/// The key cannot be a part of a string: there, its quotes would be escaped.
pub(crate) fn usage_object(json: &[u8], depth: usize) -> Option<&[u8]> {
    const KEY: &[u8] = b"\"usage\":";
    let json = json.trim_ascii_end();
    let mut before = json;
    while let Some(at) = memmem::rfind(before, KEY) {
        before = &json[..at];
        let value = json[at + KEY.len()..].trim_ascii_start();
        if !value.starts_with(b"{") {
            continue;
        }
        let Some(length) = closed_after(value, 1) else { continue };
        let (object, rest) = value.split_at(length);
        if closed_after(rest, depth) == Some(rest.len()) {
            return Some(object);
        }
    }
    None
}

/// How many bytes it takes until `depth` brackets are closed, counting from outside of a string;
/// an opening bracket at the very beginning is one of them.
fn closed_after(json: &[u8], depth: usize) -> Option<usize> {
    let mut open = if json.starts_with(b"{") { 0 } else { depth };
    let (mut in_string, mut is_escaped) = (false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => open += 1,
            b'}' | b']' => {
                open = open.checked_sub(1)?;
                if open == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
