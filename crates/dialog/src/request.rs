//! What a caller wants generated.

use crate::{Json, Message};

/// What the model is given to continue.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation, to be rendered by the model's chat template.
    Chat(Vec<Message>),
    /// Text, tokenised as it stands.
    Text(String),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSpec {
    /// The function's name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    pub parameters: Option<Json>,
    /// Whether every call of it must have arguments that its schema allows.
    pub strict: bool,
    /// Whether the model is told of it only where a [`Part::Tool`](crate::Part::Tool) of the
    /// conversation names it, and not in front of everything.
    pub is_deferred: bool,
}

impl ToolSpec {
    /// A function that is known by its name alone.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: None,
            parameters: None,
            strict: false,
            is_deferred: false,
        }
    }
}

/// The form that an answer must have; calls of tools stand beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerFormat {
    /// Some JSON object.
    JsonObject,
    /// A JSON value that this JSON Schema allows.
    JsonSchema(Json),
    /// A text that this regular expression describes, from its first letter to its last.
    Regex(String),
    /// One of these texts, word for word.
    OneOf(Vec<String>),
}

/// Whether the model may, must or must not call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// The tools are not shown to the model.
    None,
    /// Some call must be made.
    Required,
    /// This function must be called.
    Named(String),
}

/// Whether the model thinks aloud before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasoning {
    /// As the model's template does by itself.
    #[default]
    ModelDefault,
    /// The template is told to leave it out.
    Off,
    /// The template is told to open it.
    On,
}

/// How many tokens the thoughts may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningBudget {
    /// So many.
    Tokens(u32),
    /// This share of what the answer may have in all, in percent.
    Percent(u8),
}

/// How the next token is chosen. `None` means: the model's `generation_config`, then a fallback.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus mass in (0, 1].
    pub top_p: Option<f32>,
    /// Keep this many; 0 keeps all.
    pub top_k: Option<u32>,
    /// Keep tokens with at least this share of the best one's probability.
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens seen; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Subtracted once from tokens generated so far; 0 is off.
    pub presence_penalty: Option<f32>,
    /// Subtracted per occurrence from tokens generated so far; 0 is off.
    pub frequency_penalty: Option<f32>,
    /// The same request with the same seed gives the same text, in any batch.
    pub seed: Option<u64>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

/// Sampling defaults that a model brings in its `generation_config`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// See [`SamplingParams::temperature`].
    pub temperature: Option<f32>,
    /// See [`SamplingParams::top_p`].
    pub top_p: Option<f32>,
    /// See [`SamplingParams::top_k`].
    pub top_k: Option<u32>,
    /// See [`SamplingParams::min_p`].
    pub min_p: Option<f32>,
    /// See [`SamplingParams::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
}

/// With whose requests a request shares what was computed for its prompt, as far as the caller has
/// a say in that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Keeps the request to those with the same salt.
    pub salt: Option<String>,
    /// Who asks, or in which conversation, by the caller's own account.
    pub caller: Option<String>,
}

/// One generation.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// The id under which the model is served.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// Functions on offer, in the caller's order.
    pub tools: Vec<ToolSpec>,
    /// See [`ToolChoice`].
    pub tool_choice: ToolChoice,
    /// Whether one answer may call several times.
    pub parallel_tool_calls: bool,
    /// The form of the answer; `None` is free text.
    pub format: Option<AnswerFormat>,
    /// The field that asked for it, where it is not the one that its dialect has for that; errors
    /// name it.
    pub format_field: Option<&'static str>,
    /// See [`Reasoning`].
    pub reasoning: Reasoning,
    /// When the thoughts have used it up they end; `None` leaves that to `max_tokens`.
    pub reasoning_budget: Option<ReasoningBudget>,
    /// Extra variables for the chat template: a JSON object.
    pub template_arguments: Option<Json>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Cap on generated tokens; `None` is the server's default.
    pub max_tokens: Option<u32>,
    /// Cut `max_tokens` to what the context leaves instead of refusing the request.
    pub fit_context: bool,
    /// No end-of-sequence token before this many.
    pub min_tokens: u32,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Go on past end-of-sequence tokens (benchmarks).
    pub ignore_eos: bool,
    /// See [`Sharing`].
    pub sharing: Sharing,
    /// Independent answers to the same prompt; at least 1.
    pub choices: u32,
    /// Tell log-probabilities: of each token and of this many of its most probable rivals.
    pub top_logprobs: Option<u8>,
}

impl GenerateRequest {
    /// A request with every parameter at its default.
    pub fn new(model: impl Into<String>, prompt: Prompt) -> Self {
        Self {
            model: model.into(),
            prompt,
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
            parallel_tool_calls: true,
            format: None,
            format_field: None,
            reasoning: Reasoning::default(),
            reasoning_budget: None,
            template_arguments: None,
            sampling: SamplingParams::default(),
            max_tokens: None,
            fit_context: false,
            min_tokens: 0,
            stop: Vec::new(),
            ignore_eos: false,
            sharing: Sharing::default(),
            choices: 1,
            top_logprobs: None,
        }
    }
}
