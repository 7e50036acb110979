//! The inference routes that cortex forwards, one entry each.
//!
//! An entry says how a stream of its dialect ends and how its errors look; nothing else here
//! depends on a dialect.

use bytes::Bytes;

use wire::ErrorBody;

/// One inference route.
pub(crate) struct Surface {
    /// The path, the same on both sides.
    pub path: &'static str,
    /// Whether a closed SSE frame, without its blank line, ends a stream.
    pub is_last: fn(&[u8]) -> bool,
    /// The same for a frame that may be half written.
    pub is_last_unclosed: fn(&[u8]) -> bool,
    /// Whether a piece of a stream carries generated text.
    pub has_content: fn(&[u8]) -> bool,
    /// The event that ends a broken stream, as whole frames.
    pub error_event: fn(&ErrorBody) -> Bytes,
}

/// Every inference route.
pub(crate) static SURFACES: [&Surface; 1] = [&CHAT_COMPLETIONS];

/// OpenAI's chat completions.
pub(crate) static CHAT_COMPLETIONS: Surface = Surface {
    path: "/v1/chat/completions",
    is_last: |frame| is_done(frame) || openai_payload(frame).starts_with(b"{\"error\""),
    is_last_unclosed: is_done,
    has_content: chat_has_content,
    error_event: |error| Bytes::from([b"data: ", &error.json()[..], b"\n\n"].concat()),
};

fn is_done(frame: &[u8]) -> bool {
    openai_payload(frame) == b"[DONE]"
}

/// What follows `data:`; empty for a comment.
fn openai_payload(frame: &[u8]) -> &[u8] {
    frame.strip_prefix(b"data:").unwrap_or(b"").trim_ascii()
}

/// The role chunk carries `"content":""` and so does not count.
fn chat_has_content(piece: &[u8]) -> bool {
    let has = |key: &[u8]| {
        let filled = |at: usize| {
            let rest = piece[at + key.len()..].trim_ascii_start();
            rest.starts_with(b"\"") && !rest.starts_with(b"\"\"")
        };
        let found = piece.windows(key.len()).enumerate().filter(|(_, window)| *window == key);
        found.into_iter().any(|(at, _)| filled(at))
    };
    let calls: &[u8] = b"\"tool_calls\":";
    has(b"content\":") || piece.windows(calls.len()).any(|window| window == calls)
}

#[cfg(test)]
mod tests {
    use super::chat_has_content;

    // Requirement 114
    #[test]
    fn the_first_token_is_text_and_not_a_role_or_a_comment() {
        let table = [
            (": ping\n\n", false),
            (r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#, false),
            (r#"data: {"choices":[{"delta":{"content":null}}]}"#, false),
            (r#"data: {"choices":[{"delta":{"content":"a"}}]}"#, true),
            (r#"data: {"choices":[{"delta":{"content": "a"}}]}"#, true),
            (r#"data: {"choices":[{"delta":{"reasoning_content":"a"}}]}"#, true),
            (r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, true),
            ("data: [DONE]\n\n", false),
        ];
        for (piece, wanted) in table {
            assert_eq!(chat_has_content(piece.as_bytes()), wanted, "{piece}");
        }
    }
}
