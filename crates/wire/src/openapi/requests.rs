//! Bodies of requests, as far as they are read.

#![expect(dead_code, reason = "they describe what is read field by field")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::{Map, Value};

/// `POST /v1/chat/completions`
#[derive(JsonSchema)]
pub(super) struct ChatRequest {
    #[schemars(length(min = 1))]
    messages: Vec<ChatMessage>,
    #[schemars(range(min = 1, max = 2147483647))]
    max_completion_tokens: Option<u32>,
    tools: Option<Vec<ChatTool>>,
    tool_choice: Option<ToolChoice>,
    parallel_tool_calls: Option<bool>,
    enable_thinking: Option<bool>,
    #[schemars(range(min = 0, max = 2147483647))]
    thinking_budget: Option<u32>,
    thinking: Option<Thinking>,
    reasoning: Option<Reasoning>,
    reasoning_effort: Option<Effort>,
    include_reasoning: Option<bool>,
    chat_template_kwargs: Option<Map<String, Value>>,
    logprobs: Option<bool>,
    #[schemars(range(min = 0, max = 20))]
    top_logprobs: Option<u8>,
    #[schemars(flatten)]
    openai: OpenaiFields,
    #[schemars(flatten)]
    several: SeveralFields,
    #[schemars(flatten)]
    sampling: SamplingFields,
}

/// A message of a chat.
#[derive(JsonSchema)]
#[schemars(tag = "role", rename_all = "lowercase")]
enum ChatMessage {
    System {
        content: Content<TextPart>,
    },
    Developer {
        content: Content<TextPart>,
    },
    User {
        content: Content<UserPart>,
    },
    Assistant {
        content: Option<String>,
        reasoning_content: Option<String>,
        tool_calls: Option<Vec<MadeCall>>,
    },
    Tool {
        tool_call_id: String,
        content: Content<TextPart>,
    },
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Content<T> {
    Text(String),
    Parts(#[schemars(length(min = 1))] Vec<T>),
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum TextPart {
    Text { text: String },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum UserPart {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
}

#[derive(JsonSchema)]
struct ImageUrl {
    url: String,
}

#[derive(JsonSchema)]
struct MadeCall {
    id: String,
    #[schemars(rename = "type")]
    kind: Option<FunctionWord>,
    function: CalledFunction,
}

#[derive(JsonSchema)]
struct CalledFunction {
    name: String,
    /// A JSON object, as a text.
    #[schemars(extend("pattern" = r"^\{.*\}$"))]
    arguments: String,
}

/// The word `function`.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum FunctionWord {
    Function,
}

/// A function on offer, in a chat.
#[derive(JsonSchema)]
struct ChatTool {
    #[schemars(rename = "type")]
    kind: FunctionWord,
    function: FunctionTool,
}

#[derive(JsonSchema)]
struct FunctionTool {
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_\-.:]+$"))]
    name: String,
    description: Option<String>,
    /// A JSON Schema.
    parameters: Option<Map<String, Value>>,
    strict: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ToolChoice {
    Word(ToolWord),
    Named(NamedTool),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum ToolWord {
    Auto,
    None,
    Required,
}

#[derive(JsonSchema)]
struct NamedTool {
    #[schemars(rename = "type")]
    kind: FunctionWord,
    function: NamedFunction,
}

#[derive(JsonSchema)]
struct NamedFunction {
    name: String,
}

#[derive(JsonSchema)]
struct Thinking {
    #[schemars(rename = "type")]
    kind: ThinkingKind,
    #[schemars(range(min = 0, max = 2147483647))]
    budget_tokens: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum ThinkingKind {
    Enabled,
    Disabled,
    Adaptive,
}

#[derive(JsonSchema)]
struct Reasoning {
    enabled: Option<bool>,
    effort: Option<Effort>,
    #[schemars(range(min = 0, max = 2147483647))]
    max_tokens: Option<u32>,
    exclude: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

/// What every dialect of OpenAI's reads.
#[derive(JsonSchema)]
struct OpenaiFields {
    stop: Option<StopTexts>,
    user: Option<String>,
    prompt_cache_key: Option<String>,
    safety_identifier: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum StopTexts {
    One(#[schemars(length(min = 1, max = 256))] String),
    Several(#[schemars(length(max = 4))] Vec<StopText>),
}

#[derive(JsonSchema)]
struct StopText(#[schemars(length(min = 1, max = 256))] String);

/// What chat and completions read.
#[derive(JsonSchema)]
struct SeveralFields {
    #[schemars(range(min = 1, max = 2147483647))]
    max_tokens: Option<u32>,
    #[schemars(range(min = 1, max = 8))]
    n: Option<u8>,
    stream_options: Option<StreamOptions>,
    response_format: Option<ResponseFormat>,
    structured_outputs: Option<StructuredOutputs>,
    #[schemars(length(min = 1))]
    guided_regex: Option<String>,
    #[schemars(length(min = 1, max = 1000))]
    guided_choice: Option<Vec<StopText>>,
    guided_json: Option<Map<String, Value>>,
    json_schema: Option<Map<String, Value>>,
}

#[derive(JsonSchema)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema {
        json_schema: NamedSchema,
    },
    Regex {
        #[schemars(length(min = 1))]
        pattern: String,
    },
}

#[derive(JsonSchema)]
struct NamedSchema {
    name: Option<String>,
    /// A JSON Schema.
    schema: Map<String, Value>,
    strict: Option<bool>,
}

#[derive(JsonSchema)]
struct StructuredOutputs {
    json: Option<Map<String, Value>>,
    #[schemars(length(min = 1))]
    regex: Option<String>,
    #[schemars(length(min = 1, max = 1000))]
    choice: Option<Vec<StopText>>,
    json_object: Option<bool>,
}

/// How tokens are chosen, in every dialect.
#[derive(JsonSchema)]
struct SamplingFields {
    #[schemars(length(min = 1))]
    model: String,
    stream: Option<bool>,
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f32>,
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    top_p: Option<f32>,
    #[schemars(range(min = -1, max = 2147483647))]
    top_k: Option<i32>,
    #[schemars(range(min = 0, max = 1))]
    min_p: Option<f32>,
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 10))]
    repetition_penalty: Option<f32>,
    #[schemars(range(min = -2, max = 2))]
    presence_penalty: Option<f32>,
    #[schemars(range(min = -2, max = 2))]
    frequency_penalty: Option<f32>,
    #[schemars(range(min = 0, max = 9223372036854775807_u64))]
    seed: Option<u64>,
    /// Token ids and what is added to their logits.
    logit_bias: Option<BTreeMap<String, Bias>>,
    #[schemars(range(min = 0, max = 2147483647))]
    min_tokens: Option<u32>,
    ignore_eos: Option<bool>,
    cache_salt: Option<String>,
}

#[derive(JsonSchema)]
struct Bias(#[schemars(range(min = -100, max = 100))] f32);

/// `POST /v1/completions`
#[derive(JsonSchema)]
pub(super) struct CompletionRequest {
    prompt: TextOrTokens,
    #[schemars(range(min = 0, max = 20))]
    logprobs: Option<u8>,
    #[schemars(flatten)]
    openai: OpenaiFields,
    #[schemars(flatten)]
    several: SeveralFields,
    #[schemars(flatten)]
    sampling: SamplingFields,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum TextOrTokens {
    Text(#[schemars(length(min = 1))] String),
    Tokens(#[schemars(length(min = 1))] Vec<u32>),
}

/// `POST /v1/responses`
#[derive(JsonSchema)]
pub(super) struct ResponseRequest {
    input: ResponseInput,
    instructions: Option<String>,
    #[schemars(range(min = 1, max = 2147483647))]
    max_output_tokens: Option<u32>,
    tools: Option<Vec<ResponseTool>>,
    tool_choice: Option<ResponseToolChoice>,
    parallel_tool_calls: Option<bool>,
    text: Option<TextOptions>,
    reasoning: Option<ResponseReasoning>,
    include: Option<Vec<String>>,
    #[schemars(range(min = 0, max = 20))]
    top_logprobs: Option<u8>,
    /// Answered with `false`: nothing is stored.
    store: Option<bool>,
    metadata: Option<BTreeMap<String, String>>,
    #[schemars(flatten)]
    openai: OpenaiFields,
    #[schemars(flatten)]
    sampling: SamplingFields,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ResponseInput {
    Text(String),
    Items(Vec<ResponseItem>),
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum ResponseItem {
    Message {
        role: ResponseRole,
        content: Content<ResponsePart>,
    },
    FunctionCall {
        call_id: String,
        name: String,
        #[schemars(extend("pattern" = r"^\{.*\}$"))]
        arguments: String,
    },
    FunctionCallOutput {
        call_id: String,
        output: Content<ResponsePart>,
    },
    Reasoning {
        content: Option<Vec<ReasoningPart>>,
    },
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum ResponseRole {
    User,
    Assistant,
    System,
    Developer,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum ResponsePart {
    InputText { text: String },
    OutputText { text: String },
    InputImage { image_url: String },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum ReasoningPart {
    ReasoningText { text: String },
}

/// A function on offer, in responses.
#[derive(JsonSchema)]
struct ResponseTool {
    #[schemars(rename = "type")]
    kind: FunctionWord,
    #[schemars(flatten)]
    function: FunctionTool,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ResponseToolChoice {
    Word(ToolWord),
    Named(ResponseNamedTool),
}

#[derive(JsonSchema)]
struct ResponseNamedTool {
    #[schemars(rename = "type")]
    kind: FunctionWord,
    name: String,
}

#[derive(JsonSchema)]
struct TextOptions {
    format: Option<TextFormat>,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum TextFormat {
    Text,
    JsonObject,
    JsonSchema {
        name: Option<String>,
        /// A JSON Schema.
        schema: Map<String, Value>,
        strict: Option<bool>,
    },
}

#[derive(JsonSchema)]
struct ResponseReasoning {
    effort: Option<Effort>,
}

/// `POST /v1/messages`
#[derive(JsonSchema)]
pub(super) struct MessageRequest {
    #[schemars(range(min = 1, max = 2147483647))]
    max_tokens: u32,
    #[schemars(length(max = 16))]
    stop_sequences: Option<Vec<StopText>>,
    metadata: Option<Metadata>,
    #[schemars(flatten)]
    prompt: MessagePrompt,
    #[schemars(flatten)]
    sampling: SamplingFields,
}

/// `POST /v1/messages/count_tokens`
#[derive(JsonSchema)]
pub(super) struct CountRequest {
    #[schemars(length(min = 1))]
    model: String,
    #[schemars(flatten)]
    prompt: MessagePrompt,
}

/// What shapes the prompt of a message.
#[derive(JsonSchema)]
struct MessagePrompt {
    #[schemars(length(min = 1))]
    messages: Vec<SentMessage>,
    system: Option<Content<TextPart>>,
    tools: Option<Vec<MessageTool>>,
    tool_choice: Option<MessageToolChoice>,
    thinking: Option<MessageThinking>,
    output_config: Option<OutputConfig>,
}

#[derive(JsonSchema)]
#[schemars(tag = "role", rename_all = "lowercase")]
enum SentMessage {
    User { content: Content<MessageBlock> },
    Assistant { content: Content<AnswerBlock> },
    System { content: Content<TextPart> },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum MessageBlock {
    Text { text: String },
    ToolResult { tool_use_id: String, content: Option<Content<TextPart>>, is_error: Option<bool> },
    Image { source: ImageSource },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "lowercase")]
enum ImageSource {
    Base64 { media_type: String, data: String },
    Url { url: String },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
enum AnswerBlock {
    Text { text: String },
    Thinking { thinking: String, signature: Option<String> },
    ToolUse { id: String, name: String, input: Option<Map<String, Value>> },
}

#[derive(JsonSchema)]
struct MessageTool {
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_\-.:]+$"))]
    name: String,
    description: Option<String>,
    /// A JSON Schema.
    input_schema: Option<Map<String, Value>>,
    strict: Option<bool>,
    /// Told where a result of a search names the tool, and not before.
    defer_loading: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "lowercase")]
enum MessageToolChoice {
    Auto { disable_parallel_tool_use: Option<bool> },
    Any { disable_parallel_tool_use: Option<bool> },
    Tool { name: String, disable_parallel_tool_use: Option<bool> },
    None,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "lowercase")]
enum MessageThinking {
    Enabled {
        #[schemars(range(min = 1024, max = 2147483647))]
        budget_tokens: Option<u32>,
        display: Option<String>,
    },
    Disabled,
    Adaptive {
        display: Option<String>,
    },
}

#[derive(JsonSchema)]
struct OutputConfig {
    effort: Option<Effort>,
    format: Option<TextFormat>,
}

#[derive(JsonSchema)]
struct Metadata {
    user_id: Option<String>,
}

/// `POST /v1/embeddings`
#[derive(JsonSchema)]
pub(super) struct EmbeddingsRequest {
    #[schemars(length(min = 1))]
    model: String,
    input: EmbeddingInput,
    encoding_format: Option<Encoding>,
    #[schemars(range(min = 1, max = 2147483647))]
    dimensions: Option<u32>,
    user: Option<String>,
    cache_salt: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum EmbeddingInput {
    One(TextOrTokens),
    Several(#[schemars(length(min = 1, max = 2048))] Vec<TextOrTokens>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Encoding {
    Float,
    Base64,
}

/// `POST /tokenize`: a text, or the messages of a chat.
#[derive(JsonSchema)]
pub(super) struct TokenizeRequest {
    #[schemars(length(min = 1))]
    model: String,
    prompt: String,
    return_token_strs: Option<bool>,
    with_pieces: Option<bool>,
}

/// `POST /detokenize`
#[derive(JsonSchema)]
pub(super) struct DetokenizeRequest {
    #[schemars(length(min = 1))]
    model: String,
    tokens: Vec<u32>,
}
