//! Token counts and times as OpenAI's completion dialects tell them.

use dialog::{CacheMiss, Role, Timings, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Adds the counts of one of several answers to the same prompt, which counts once.
pub(crate) fn add_choice(total: &mut Usage, choice: u32, usage: &Usage) {
    if choice == 0 {
        (total.prompt_tokens, total.cached_tokens) = (usage.prompt_tokens, usage.cached_tokens);
    }
    total.completion_tokens += usage.completion_tokens;
    total.reasoning_tokens += usage.reasoning_tokens;
}

/// Requirement 24: the details are parts of the totals, and left out when zero.
#[derive(Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct UsageBody {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: u32,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: u32,
}

impl From<&Usage> for UsageBody {
    fn from(usage: &Usage) -> Self {
        let cached = (usage.cached_tokens > 0)
            .then_some(PromptDetails { cached_tokens: usage.cached_tokens });
        let reasoning = (usage.reasoning_tokens > 0)
            .then_some(CompletionDetails { reasoning_tokens: usage.reasoning_tokens });
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
            prompt_tokens_details: cached,
            completion_tokens_details: reasoning,
        }
    }
}

/// The same from another hand, where anything may be missing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct UsageRead {
    prompt_tokens: u32,
    completion_tokens: u32,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

/// Reads the object of a `usage` field.
pub(crate) fn read(object: &[u8]) -> Option<Usage> {
    let read: UsageRead = serde_json::from_slice(object).ok()?;
    Some(Usage {
        prompt_tokens: read.prompt_tokens,
        completion_tokens: read.completion_tokens,
        cached_tokens: read.prompt_tokens_details.map_or(0, |details| details.cached_tokens),
        reasoning_tokens: read.completion_tokens_details.map_or(0, |it| it.reasoning_tokens),
    })
}

/// Field names as llama-server's, so that its clients show them.
#[derive(Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct TimingsBody {
    queue_ms: f64,
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_second: f64,
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_second: f64,
    cache_n: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_miss: Option<CacheMissBody>,
}

/// The message at which the prompt parted from the longest cached one.
#[derive(Clone, Copy, Serialize, JsonSchema)]
struct CacheMissBody {
    message: u32,
    role: &'static str,
}

impl From<CacheMiss> for CacheMissBody {
    fn from(miss: CacheMiss) -> Self {
        let role = match miss.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        Self { message: miss.message, role }
    }
}

impl TimingsBody {
    pub(crate) fn new(usage: &Usage, timings: &Timings) -> Self {
        let computed = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
        // Requirement 114: the decode window opens with the first token, which it does not count.
        let decoded = usage.completion_tokens.saturating_sub(1);
        Self {
            queue_ms: timings.queue_ms,
            prompt_n: computed,
            prompt_ms: timings.prompt_ms,
            prompt_per_second: per_second(computed, timings.prompt_ms),
            predicted_n: usage.completion_tokens,
            predicted_ms: timings.predicted_ms,
            predicted_per_second: per_second(decoded, timings.predicted_ms),
            cache_n: usage.cached_tokens,
            cache_miss: timings.cache_miss.map(CacheMissBody::from),
        }
    }
}

fn per_second(count: u32, milliseconds: f64) -> f64 {
    if milliseconds > 0.0 { f64::from(count) * 1000.0 / milliseconds } else { 0.0 }
}
