//! The shapes that go out. Clients validate them strictly: documented keys are never left out.

use dialog::FinishReason;
use schemars::JsonSchema;
use serde::Serialize;

use crate::logprobs::ListsBody;
use crate::usage::{TimingsBody, UsageBody};

/// A chunk of a stream or a whole answer: this dialect has one shape for both.
#[derive(Serialize, JsonSchema)]
pub(super) struct Completion<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) choices: &'a [Choice<'a>],
    /// Outer `None`: not asked for. Inner `None`: it comes in a later chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<UsageBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timings: Option<TimingsBody>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Choice<'a> {
    pub(super) text: &'a str,
    pub(super) index: u32,
    pub(super) logprobs: Option<ListsBody>,
    pub(super) finish_reason: Option<&'static str>,
}

/// No tools are offered, so that a call cannot be why an answer ended.
pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::ToolCalls => "stop",
        FinishReason::Length => "length",
    }
}

/// The shape of a whole answer.
pub(crate) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<Completion<'static>>()
}
