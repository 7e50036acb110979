//! `POST /v1/completions`, the older dialect: a prompt goes on, without a chat template.
//!
//! Stated choices: one prompt a request, as a string or as token ids; an absent `max_tokens` is
//! the server's default and not 16; what a model marks as reasoning is part of the text, which has
//! no other place for it; unknown fields are ignored. Calls cannot be made here, since no tools
//! can be offered.

mod parse;
mod project;
mod types;

#[cfg(test)]
mod tests;

pub use parse::{ReplyOptions, parse};
pub use project::{Collector, Stream, shows_words};
pub(crate) use types::schema;
