//! What happens while an answer is made, in the order in which it happens.

use crate::Role;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token or a stop text.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
    /// The model called tools and waits for their results.
    ToolCalls,
}

/// Token counts of one answer. The detail counts are parts of the totals, never added to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, reasoning and markers included.
    pub completion_tokens: u32,
    /// Prompt tokens that a prefix cache supplied.
    pub cached_tokens: u32,
    /// Generated tokens that belong to the reasoning.
    pub reasoning_tokens: u32,
}

/// Where a prompt parted from the longest one that is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheMiss {
    /// The message's place in the request, from 0.
    pub message: u32,
    /// Who speaks in it.
    pub role: Role,
}

/// One token of an answer, and what the model thought of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// What it spells; a character may be spread over several tokens.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability, by the model's own distribution.
    pub logprob: f32,
    /// The most probable tokens in its place, best first.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// From arrival to the first step that worked on the request.
    pub queue_ms: f64,
    /// From that step to the first token.
    pub prompt_ms: f64,
    /// From the first token to the last.
    pub predicted_ms: f64,
    /// Why no more of the prompt was cached, when it differs from what is.
    pub cache_miss: Option<CacheMiss>,
}

/// What kind of failure ends an answer; a dialect maps it to a status or an error event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The engine died or reported a device fault.
    EngineFailed,
    /// The model is being unloaded.
    Draining,
    /// No room for the request now.
    Overloaded,
    /// This request's own numbers are broken (a NaN row, say); others go on.
    Numerical,
    /// The answer could not be kept in the form that was asked for; others go on.
    FormatLost,
}

/// A failure after the answer began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// See [`FailureKind`].
    pub kind: FailureKind,
    /// For the caller; holds no host names, paths or pointers.
    pub message: String,
}

/// One thing that happens to an answer.
///
/// Order: [`Event::Started`], then any number of text, reasoning and tool events, then exactly one
/// of [`Event::Finished`] and [`Event::Failed`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Every check that can refuse has passed.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
    /// More reasoning.
    Reasoning(String),
    /// More text; whole UTF-8 characters.
    Text(String),
    /// The tokens of words that come next, or whose last letters are still held back. Only in
    /// answers to requests that ask for them, and only of words, not of reasoning or calls.
    Logprobs(Vec<TokenLogprob>),
    /// The model begins to call a function.
    ToolCall {
        /// Counts from 0 in the order of the calls.
        index: u32,
        /// Unique in the answer.
        id: String,
        /// The function's name.
        name: String,
    },
    /// More of that call's arguments, as JSON text; all of them come before the next other event.
    ToolArguments {
        /// The call.
        index: u32,
        /// A piece of the arguments' JSON text.
        delta: String,
    },
    /// A stop text of the request ended the answer; [`Event::Finished`] follows. The text itself is
    /// not part of the answer.
    StopText(String),
    /// The answer is complete.
    Finished {
        /// See [`FinishReason`].
        reason: FinishReason,
        /// See [`Usage`].
        usage: Usage,
        /// See [`Timings`].
        timings: Timings,
    },
    /// The answer ends here, incomplete.
    Failed(Failure),
}
