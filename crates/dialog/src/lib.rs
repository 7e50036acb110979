//! The neutral language between the dialects on the wire and the engine behind them.
//!
//! A dialect parses its body into a [`GenerateRequest`] and projects [`Event`]s back into its own
//! shape. Nothing here knows JSON schemas of a vendor, tokens' spelling or a transport.
#![forbid(unsafe_code)]

mod event;
mod message;
mod request;

pub use event::{
    CacheMiss, Event, Failure, FailureKind, FinishReason, Timings, TokenLogprob, Usage,
};
pub use message::{Json, Message, Part, Role, ToolCall};
pub use request::{
    AnswerFormat, Defaults, GenerateRequest, Prompt, Reasoning, ReasoningBudget, SamplingParams,
    Sharing, ToolChoice, ToolSpec,
};
