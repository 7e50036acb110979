//! `POST /v1/chat/completions`.
//!
//! Stated choices where the field leaves room: unknown top-level fields are ignored; duplicate
//! keys, the last one wins; `stream_options` without `stream` is ignored; a `tool_call_id` that no
//! earlier call had is accepted; `top_k` of -1 keeps all tokens; a `seed` is from 0 to 2^63-1.

mod message;
mod parse;
mod project;
mod tools;
mod types;

#[cfg(test)]
mod tests;

pub use parse::{ReplyOptions, parse};
pub use project::{Collector, Stream, shows_words};
pub(crate) use types::schema;
