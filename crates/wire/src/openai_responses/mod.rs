//! `POST /v1/responses`.
//!
//! Stated choices where the field leaves room:
//!
//! - Nothing is stored: `store: true` is accepted and answered with `store: false`, an earlier
//!   response cannot be named, `background` and `conversation` are refused.
//! - An empty `input` is an empty user turn, since agents probe with it.
//! - Items, parts and tools of unknown types are left out; files are refused by name.
//! - Reasoning is an item of its own with its whole text; there are no summaries.
//! - `max_output_tokens` above what the context leaves is cut to it; `truncation: auto` is accepted
//!   and shortens nothing.
//! - `text.verbosity` and `reasoning.summary` are hints that agents always send; they do nothing.
//! - A failure of the engine is `response.failed`.

mod echo;
mod error;
mod input;
mod parse;
mod project;
mod tools;
mod types;

#[cfg(test)]
mod tests;

pub use echo::Echo;
pub(crate) use error::error_event;
pub(crate) use parse::max_tokens;
pub use parse::{ReplyOptions, parse};
pub use project::{Collector, Stream, is_last, shows_words};

/// The last event of a stream holds the whole response one level down.
pub(crate) fn usage_in(json: &[u8], at: crate::dialect::UsageAt) -> Option<dialog::Usage> {
    let depth = match at {
        crate::dialect::UsageAt::Body => 1,
        crate::dialect::UsageAt::Event => 2,
    };
    types::read_usage(crate::tally::usage_object(json, depth)?)
}
pub(crate) use types::schema;
