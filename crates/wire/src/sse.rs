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
