//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.
//!
//! Stated choices where the field leaves room:
//!
//! - A one-line text block of `system` that begins with `x-anthropic-billing-header:` is left out
//!   of the prompt: it changes with each request, and with it at the front no prompt ever shares
//!   its prefix with the one before. It is the only edit made to what a caller says.
//! - `max_tokens` above what the context leaves is cut to it, as agents ask for a fixed large one.
//! - Without `thinking` the model is told not to think, and with `display: omitted` too;
//!   `adaptive` leaves it to the model's template; `enabled` turns it on. `budget_tokens`, or else
//!   `output_config.effort`, bounds the thoughts.
//! - A thinking block that is sent back counts if it was signed here for the same model, or not
//!   signed at all; others are dropped, as are `redacted_thinking` and blocks of server tools.
//! - An answer cannot be begun by the caller: a conversation that ends with the assistant is
//!   refused.
//! - A `thread` is refused in the words by which SDKs go on without one: nothing is stored.
//! - A call that was cut by `max_tokens` is told as text in a whole message, where `input` has to
//!   be an object; in a stream its pieces end where they end.
//! - A tool with `defer_loading` is told where a result of a search, or a `tool_addition` of a
//!   system turn, names it, and nowhere before.
//! - Unknown fields, betas and tools of other types than `custom` are ignored.

mod changes;
mod content;
mod error;
mod message;
mod parse;
mod project;
mod signature;
mod tools;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use error::{error, error_event};
pub use parse::{ReplyOptions, parse, parse_count};
pub use project::{Collector, PING, Stream, is_last, shows_words};
pub use types::token_count;

/// A stream announces what was read within its first message, and tells the rest beside it.
pub(crate) fn usage_in(json: &[u8]) -> Option<dialog::Usage> {
    let find = |depth| crate::tally::usage_object(json, depth);
    types::read_usage(find(1).or_else(|| find(2))?)
}
pub(crate) use error::schema as error_schema;
pub(crate) use types::{count_schema, schema};
