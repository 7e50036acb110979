//! The shapes that go out. Clients validate them strictly: documented keys are never left out.

use std::borrow::Cow;

use dialog::{FinishReason, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is announced at the beginning of a stream and told as a whole otherwise.
#[derive(Serialize, JsonSchema)]
pub(super) struct Message<'a> {
    pub(super) id: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: Vec<ContentBlock<'a>>,
    pub(super) stop_reason: Option<&'static str>,
    pub(super) stop_sequence: Option<&'a str>,
    pub(super) usage: UsageBody,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ContentBlock<'a> {
    Text { text: Cow<'a, str> },
    Thinking { thinking: &'a str, signature: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: Box<RawValue> },
}

/// Frames of a stream; the `type` is the event's name too.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Frame<'a> {
    MessageStart { message: Message<'a> },
    ContentBlockStart { index: usize, content_block: ContentBlock<'a> },
    ContentBlockDelta { index: usize, delta: Delta<'a> },
    ContentBlockStop { index: usize },
    MessageDelta { delta: MessageDelta<'a>, usage: UsageBody },
    MessageStop,
}

impl Frame<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type")]
pub(super) enum Delta<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

#[derive(Serialize)]
pub(super) struct MessageDelta<'a> {
    pub(super) stop_reason: &'static str,
    pub(super) stop_sequence: Option<&'a str>,
}

/// Here the tokens that a cache supplied are no part of `input_tokens`; the three add up.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct UsageBody {
    input_tokens: u32,
    cache_creation_input_tokens: u32,
    cache_read_input_tokens: u32,
    output_tokens: u32,
    /// Requirement 24: a part of the output, left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: u32,
}

impl From<&Usage> for UsageBody {
    fn from(usage: &Usage) -> Self {
        let details = OutputDetails { thinking_tokens: usage.reasoning_tokens };
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
            output_tokens_details: (usage.reasoning_tokens > 0).then_some(details),
        }
    }
}

/// Reads the object of a `usage` field.
pub(super) fn read_usage(object: &[u8]) -> Option<Usage> {
    let body: UsageBody = serde_json::from_slice(object).ok()?;
    let written = body.cache_creation_input_tokens;
    Some(Usage {
        prompt_tokens: body.input_tokens + written + body.cache_read_input_tokens,
        completion_tokens: body.output_tokens,
        cached_tokens: body.cache_read_input_tokens,
        reasoning_tokens: body.output_tokens_details.map_or(0, |it| it.thinking_tokens),
    })
}

/// Requirement 15. A stop text counts only where nothing else ended the answer.
pub(super) fn stop_reason(reason: FinishReason, stop_text: Option<&str>) -> &'static str {
    match reason {
        FinishReason::Stop if stop_text.is_some() => "stop_sequence",
        FinishReason::Stop => "end_turn",
        FinishReason::Length => "max_tokens",
        FinishReason::ToolCalls => "tool_use",
    }
}

/// The body of `POST /v1/messages/count_tokens`.
pub fn token_count(input_tokens: u32) -> Vec<u8> {
    serde_json::to_vec(&TokenCount { input_tokens }).expect("wire types always serialise")
}

#[derive(Serialize, JsonSchema)]
struct TokenCount {
    input_tokens: u32,
}

/// The shape of a count.
pub(crate) fn count_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<TokenCount>()
}

/// The shape of a whole answer.
pub(crate) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<Message<'static>>()
}
