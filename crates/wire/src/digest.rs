//! What a prompt begins with, in numbers: how gateway and node agree on who computed it before.
//!
//! A prompt is cut where conversations part: after each message, or after each kilobyte of plain
//! text. The digest of a piece covers all pieces before it, so that two requests have a digest in
//! common exactly where one begins like the other. Bytes are taken as the caller sent them.

use crate::Dialect;
use crate::fields::{self, Object};

/// Pieces of a prompt that is one text.
const TEXT_PIECE_BYTES: usize = 1024;
/// Digests have so many bits, which every reader of JSON keeps.
const BITS: u32 = 53;

/// A digest, and how many bytes of the prompt it covers.
pub type Beginning = (u64, u64);

impl Dialect {
    /// The digests of a request's prompt, from the shortest beginning to the whole; none where the
    /// body has no prompt that can be read.
    #[must_use]
    pub fn beginnings(self, body: &[u8]) -> Vec<Beginning> {
        let Ok(body) = fields::body(body) else { return Vec::new() };
        let field = self.prompt_field();
        let Some(raw) = body.raw(field) else { return Vec::new() };
        let mut chain = Chain::default();
        match messages(&body, field) {
            Some(messages) => messages.iter().for_each(|message| chain.push(message.as_bytes())),
            None => raw.get().as_bytes().chunks(TEXT_PIECE_BYTES).for_each(|it| chain.push(it)),
        }
        chain.links
    }
}

fn messages<'a>(body: &Object<'a>, field: &str) -> Option<Vec<&'a str>> {
    let items = body.array(field).ok()??;
    let is_list = items.first().is_some_and(|first| first.get().starts_with('{'));
    is_list.then(|| items.into_iter().map(|item| item.get()).collect())
}

#[derive(Default)]
struct Chain {
    state: u64,
    bytes: u64,
    links: Vec<Beginning>,
}

impl Chain {
    fn push(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.state = mixed(self.state, piece.len() as u64);
        let (words, rest) = piece.as_chunks::<8>();
        for word in words {
            self.state = mixed(self.state, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.state = mixed(self.state, u64::from_le_bytes(last));
        self.links.push((self.state >> (u64::BITS - BITS), self.bytes));
    }
}

/// One word more: a folded product, whose high bits depend on every bit of both.
fn mixed(state: u64, word: u64) -> u64 {
    let wide = u128::from(state ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd1b5_4a32_d192_ed03);
    (wide as u64) ^ (wide >> 64) as u64 ^ state.rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(messages: &[&str]) -> Vec<u64> {
        let messages: Vec<String> = messages
            .iter()
            .map(|it| format!("{{\"role\":\"user\",\"content\":\"{it}\"}}"))
            .collect();
        let body = format!("{{\"model\":\"m\",\"messages\":[{}]}}", messages.join(", "));
        Dialect::OpenaiChat.beginnings(body.as_bytes()).into_iter().map(|it| it.0).collect()
    }

    #[test]
    fn conversations_have_in_common_what_they_begin_with() {
        let (short, long) = (chat(&["one", "two"]), chat(&["one", "two", "three"]));
        assert_eq!(short, long[..2]);
        let other = chat(&["one", "2", "three"]);
        assert_eq!(other[0], long[0]);
        assert!(other[1] != long[1] && other[2] != long[2]);
        assert_ne!(chat(&["onetwo"]), chat(&["one", "two"])[..1]);
        assert!(long.iter().all(|digest| *digest < 1 << BITS));
    }

    #[test]
    fn every_dialect_has_beginnings_and_bytes_add_up() {
        let text = "x".repeat(3000);
        for (dialect, body) in [
            (Dialect::OpenaiCompletions, format!("{{\"prompt\":\"{text}\"}}")),
            (Dialect::OpenaiResponses, format!("{{\"input\":\"{text}\"}}")),
        ] {
            let chain = dialect.beginnings(body.as_bytes());
            assert_eq!(chain.iter().map(|it| it.1).collect::<Vec<_>>(), [1024, 2048, 3002]);
        }
        let body = br#"{"messages":[{"role":"user","content":[]}],"max_tokens":1}"#;
        assert_eq!(Dialect::Anthropic.beginnings(body).len(), 1);
        assert!(Dialect::Anthropic.beginnings(b"{}").is_empty());
        assert!(Dialect::OpenaiChat.beginnings(b"no JSON").is_empty());
    }
}
