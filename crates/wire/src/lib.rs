//! The dialects on the wire: bodies in, [`dialog`] values between, bytes out.
//!
//! Everything here is a pure function of its arguments: no clock, no randomness, no transport. A
//! dialect never imports another one; what they share is the reading of JSON fields, the error
//! envelope and the framing of server-sent events.
//!
//! Duplicate keys: the last one wins, in [`peek`] and in every `parse` alike, so that the gateway
//! and the node can never read two different models out of one body.
#![forbid(unsafe_code)]

mod answer;
mod answers;
pub mod anthropic;
mod dialect;
mod digest;
pub mod embeddings;
pub mod error;
mod fields;
mod format;
mod head;
mod logprobs;
pub mod models;
pub mod openai_chat;
pub mod openai_completions;
pub mod openai_responses;
pub mod openapi;
mod peek;
mod projector;
#[cfg(test)]
mod sample;
mod sampling;
mod sharing;
pub mod sse;
mod tally;
mod thinking;
pub mod tokenize;
mod tools;
mod usage;
mod wishes;

pub use dialect::{Dialect, Reply};
pub use digest::Beginning;
pub use error::{ErrorBody, Retry, WireError};
pub use head::Head;
pub use peek::{Peek, peek, renamed};
pub use projector::{EventCollector, EventStream, Projector, Stamp};
pub use tally::{Tally, usage_comment};
