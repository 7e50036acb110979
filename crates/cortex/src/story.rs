//! The log line of one inference request.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::meter::Used;
use crate::record::End;

/// What the line says; written when it is dropped.
pub(crate) struct Story {
    pub id: Arc<str>,
    pub path: &'static str,
    pub model: Option<String>,
    pub node: Option<String>,
    pub key: Option<String>,
    pub status: u16,
    pub end: End,
    pub retried: bool,
    pub held: bool,
    pub moved: u32,
    pub request_bytes: usize,
    pub reply_bytes: u64,
    pub used: Used,
    pub first_token: Option<Duration>,
    pub took: Duration,
}

impl Story {
    /// Writes it when whatever runs now has had its turn: an answer ends before its last bytes go
    /// out, and these need not wait until a line is put into words.
    pub(crate) fn tell_soon(self) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { drop(self) });
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let usage = self.used.usage;
        tracing::info!(
            id = &*self.id,
            path = self.path,
            model = self.model.as_deref().map(clipped),
            node = self.node,
            key = self.key,
            status = self.status,
            end = self.end.word(),
            retried = self.retried,
            held = self.held,
            moved = self.moved,
            request_bytes = self.request_bytes,
            reply_bytes = self.reply_bytes,
            prompt_tokens = usage.prompt_tokens,
            completion_tokens = usage.completion_tokens,
            cached_tokens = usage.cached_tokens,
            reasoning_tokens = usage.reasoning_tokens,
            estimated = self.used.is_estimate,
            ttft_ms = self.first_token.map(|at| at.as_secs_f64() * 1e3),
            took_ms = self.took.as_secs_f64() * 1e3,
            "request"
        );
    }
}

/// A client may name a model of ten kilobytes; nothing repeats it all.
pub(crate) fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}
