//! Framing of server-sent events.

use serde::Serialize;

/// The last frame of an OpenAI stream that ended well.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A comment that keeps idle connections open; clients skip it.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Appends one `data:` frame. JSON text has no raw line breaks, so that one line is enough.
pub(crate) fn push_data(out: &mut Vec<u8>, payload: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    serde_json::to_writer(&mut *out, payload).expect("wire types always serialise");
    out.extend_from_slice(b"\n\n");
}

/// Appends one frame with its event's name, for dialects whose clients read it.
pub(crate) fn push_event(out: &mut Vec<u8>, name: &str, payload: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    push_data(out, payload);
}

/// The event's name and the payload of a frame; either is empty where it is not there.
pub(crate) fn read(frame: &[u8]) -> (&[u8], &[u8]) {
    let (mut name, mut data): (&[u8], &[u8]) = (b"", b"");
    for line in frame.split(|byte| *byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"event:") {
            name = value.trim_ascii();
        } else if let Some(value) = line.strip_prefix(b"data:") {
            data = value.trim_ascii();
        }
    }
    (name, data)
}

/// Whether `piece` holds `words`.
pub(crate) fn holds(piece: &[u8], words: &[u8]) -> bool {
    piece.windows(words.len()).any(|window| window == words)
}

/// Whether a frame ends a stream of OpenAI's completion dialects: `[DONE]` or an error. A frame
/// that may be half written ends nothing but by the former.
pub(crate) fn is_openai_end(frame: &[u8], is_closed: bool) -> bool {
    let (_, data) = read(frame);
    data == b"[DONE]" || (is_closed && data.starts_with(b"{\"error\""))
}

/// Whether `key`, given with its quote and colon, has a string behind it that is not empty.
pub(crate) fn has_filled(piece: &[u8], key: &[u8]) -> bool {
    let filled = |at: usize| {
        let rest = piece[at + key.len()..].trim_ascii_start();
        rest.starts_with(b"\"") && !rest.starts_with(b"\"\"")
    };
    let found = piece.windows(key.len()).enumerate().filter(|(_, window)| *window == key);
    found.into_iter().any(|(at, _)| filled(at))
}
