//! The shapes that go out. Clients validate them strictly: documented keys are never left out.

use dialog::{TokenLogprob, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Echo;
use crate::logprobs::{TokenBody, tokens};

#[derive(Serialize, JsonSchema)]
pub(super) struct Response<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created_at: u64,
    pub(super) status: &'static str,
    pub(super) background: bool,
    pub(super) error: Option<Failure<'a>>,
    pub(super) incomplete_details: Option<Incomplete>,
    pub(super) model: &'a str,
    pub(super) output: Vec<Item<'a>>,
    pub(super) previous_response_id: Option<()>,
    pub(super) store: bool,
    #[serde(flatten)]
    pub(super) echo: &'a Echo,
    pub(super) usage: Option<UsageBody>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Failure<'a> {
    /// One of the dialect's closed set.
    pub(super) code: &'static str,
    pub(super) message: &'a str,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Incomplete {
    pub(super) reason: &'static str,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Item<'a> {
    Message {
        id: &'a str,
        status: &'static str,
        role: &'static str,
        content: Vec<Part<'a>>,
    },
    Reasoning {
        id: &'a str,
        status: &'static str,
        summary: [(); 0],
        content: Vec<Part<'a>>,
        encrypted_content: Option<()>,
    },
    FunctionCall {
        id: &'a str,
        status: &'static str,
        call_id: &'a str,
        name: &'a str,
        arguments: &'a str,
    },
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part<'a> {
    OutputText { text: &'a str, annotations: [(); 0], logprobs: Vec<TokenBody<'a>> },
    ReasoningText { text: &'a str },
}

impl<'a> Part<'a> {
    pub(super) fn output_text(text: &'a str, logprobs: &'a [TokenLogprob]) -> Self {
        Self::OutputText { text, annotations: [], logprobs: tokens(logprobs) }
    }
}

/// One event. The number comes last, so that it is among the last bytes however long the event is.
#[derive(Default, Serialize)]
pub(super) struct Frame<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<Response<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<Part<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<Vec<TokenBody<'a>>>,
    pub(super) sequence_number: u64,
}

/// In this dialect the details are required even when they are zero.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct UsageBody {
    input_tokens: u32,
    input_tokens_details: InputDetails,
    output_tokens: u32,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct InputDetails {
    cached_tokens: u32,
    cache_write_tokens: u32,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: u32,
}

impl From<&Usage> for UsageBody {
    fn from(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens,
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        }
    }
}

/// Reads the object of a `usage` field.
pub(super) fn read_usage(object: &[u8]) -> Option<Usage> {
    let body: UsageBody = serde_json::from_slice(object).ok()?;
    Some(Usage {
        prompt_tokens: body.input_tokens,
        completion_tokens: body.output_tokens,
        cached_tokens: body.input_tokens_details.cached_tokens,
        reasoning_tokens: body.output_tokens_details.reasoning_tokens,
    })
}

/// The shape of a whole answer.
pub(crate) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<Response<'static>>()
}
