//! The OpenAPI document of the inference routes.
//!
//! Answers are described by the types that are serialised; requests by types that stand here, since
//! bodies are read field by field. A test holds each of their fields against the readers.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{anthropic, embeddings, error, models};
use crate::{openai_chat, openai_completions, openai_responses};

/// `POST /v1/chat/completions`; further fields are read, or ignored (docs/dialects.md).
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct ChatRequest {
    #[schemars(length(min = 1))]
    model: String,
    #[schemars(length(min = 1))]
    messages: Vec<ChatMessage>,
    #[schemars(flatten)]
    sampling: SamplingFields,
    #[schemars(range(min = 1, max = 2147483647))]
    max_completion_tokens: Option<u32>,
    enable_thinking: Option<bool>,
    reasoning_effort: Option<Effort>,
    logprobs: Option<bool>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct ChatMessage {
    role: ChatRole,
    content: String,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes what is read field by field")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes what is read field by field")]
enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

/// How tokens are chosen, in every dialect.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct SamplingFields {
    #[schemars(range(min = 1, max = 2147483647))]
    max_tokens: Option<u32>,
    stream: Option<bool>,
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f32>,
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    top_p: Option<f32>,
    #[schemars(range(min = -1, max = 2147483647))]
    top_k: Option<i32>,
    #[schemars(range(min = 0, max = 9223372036854775807_u64))]
    seed: Option<u64>,
}

/// `POST /v1/completions`
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct CompletionRequest {
    #[schemars(length(min = 1))]
    model: String,
    #[schemars(length(min = 1))]
    prompt: String,
    #[schemars(flatten)]
    sampling: SamplingFields,
}

/// `POST /v1/responses`
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct ResponseRequest {
    #[schemars(length(min = 1))]
    model: String,
    input: String,
    instructions: Option<String>,
    #[schemars(range(min = 1, max = 2147483647))]
    max_output_tokens: Option<u32>,
    stream: Option<bool>,
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f32>,
}

/// `POST /v1/messages`
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct MessageRequest {
    #[schemars(length(min = 1))]
    model: String,
    #[schemars(range(min = 1, max = 2147483647))]
    max_tokens: u32,
    #[schemars(length(min = 1, max = 1))]
    messages: Vec<UserMessage>,
    system: Option<String>,
    stream: Option<bool>,
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f32>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct UserMessage {
    role: UserRole,
    content: String,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes what is read field by field")]
enum UserRole {
    User,
}

/// `POST /v1/messages/count_tokens`
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct CountRequest {
    #[schemars(length(min = 1))]
    model: String,
    #[schemars(length(min = 1, max = 1))]
    messages: Vec<UserMessage>,
    system: Option<String>,
}

/// `POST /v1/embeddings`
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct EmbeddingsRequest {
    #[schemars(length(min = 1))]
    model: String,
    #[schemars(length(min = 1))]
    input: String,
    #[schemars(range(min = 1, max = 2147483647))]
    dimensions: Option<u32>,
}

/// `POST /tokenize`
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct TokenizeRequest {
    #[schemars(length(min = 1))]
    model: String,
    prompt: String,
    return_token_strs: Option<bool>,
}

/// `POST /detokenize`
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
struct DetokenizeRequest {
    #[schemars(length(min = 1))]
    model: String,
    tokens: Vec<u32>,
}

/// The document, as a JSON body.
pub fn document() -> Vec<u8> {
    let requests = &mut settings().for_deserialize().into_generator();
    let answers = &mut settings().for_serialize().into_generator();
    let paths = paths(requests, answers);
    let mut schemas = requests.take_definitions(true);
    schemas.extend(answers.take_definitions(true));
    let document = json!({
        "openapi": "3.1.0",
        "info": {"title": "cortex and neuron", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    });
    serde_json::to_vec(&document).expect("a document made here is JSON")
}

fn settings() -> SchemaSettings {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    settings
}

fn paths(requests: &mut SchemaGenerator, it: &mut SchemaGenerator) -> Map<String, Value> {
    let tokens = json!({"type": "object", "required": ["count", "tokens"]});
    let count = json!({"type": "object", "required": ["input_tokens"],
        "properties": {"input_tokens": {"type": "integer", "minimum": 0}}});
    let text = json!({"type": "object", "required": ["prompt", "content"]});
    let refusal = error::schema(it).to_value();
    let anthropic_refusal = anthropic::error_schema(it).to_value();
    type Make = fn(&mut SchemaGenerator) -> Schema;
    let posts: [(&str, Make, Value, &Value); 8] = [
        (
            "/v1/chat/completions",
            SchemaGenerator::subschema_for::<ChatRequest>,
            openai_chat::schema(it).to_value(),
            &refusal,
        ),
        (
            "/v1/completions",
            SchemaGenerator::subschema_for::<CompletionRequest>,
            openai_completions::schema(it).to_value(),
            &refusal,
        ),
        (
            "/v1/responses",
            SchemaGenerator::subschema_for::<ResponseRequest>,
            openai_responses::schema(it).to_value(),
            &refusal,
        ),
        (
            "/v1/messages",
            SchemaGenerator::subschema_for::<MessageRequest>,
            anthropic::schema(it).to_value(),
            &anthropic_refusal,
        ),
        (
            "/v1/messages/count_tokens",
            SchemaGenerator::subschema_for::<CountRequest>,
            count,
            &anthropic_refusal,
        ),
        (
            "/v1/embeddings",
            SchemaGenerator::subschema_for::<EmbeddingsRequest>,
            embeddings::schema(it).to_value(),
            &refusal,
        ),
        ("/tokenize", SchemaGenerator::subschema_for::<TokenizeRequest>, tokens, &refusal),
        ("/detokenize", SchemaGenerator::subschema_for::<DetokenizeRequest>, text, &refusal),
    ];
    let mut paths = Map::new();
    for (path, request, answer, refusal) in posts {
        let request = request(requests).to_value();
        paths.insert(path.to_owned(), post(path, &request, &answer, refusal));
    }
    paths.insert("/v1/models".to_owned(), list_of_models(it));
    paths
}

fn post(path: &str, request: &Value, answer: &Value, refusal: &Value) -> Value {
    let mut answers = content("application/json", answer);
    // Server-sent events, which a schema of JSON does not describe.
    if ["completions", "responses", "messages"].iter().any(|it| path.ends_with(it)) {
        answers["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    let refused = content("application/json", refusal);
    let refused = json!({"description": "refused", "content": refused});
    json!({"post": {
        "requestBody": {"required": true, "content": content("application/json", request)},
        "responses": {
            "200": {"description": "answered", "content": answers},
            "4XX": refused, "503": refused, "529": refused,
        },
    }})
}

fn list_of_models(it: &mut SchemaGenerator) -> Value {
    let model = models::schema(it).to_value();
    let list = json!({"type": "object", "required": ["object", "data"],
        "properties": {"data": {"type": "array", "items": model}}});
    let content = content("application/json", &list);
    json!({"get": {"responses": {"200": {"description": "the models", "content": content}}}})
}

fn content(kind: &str, schema: &Value) -> Value {
    json!({ kind: {"schema": schema} })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_it_was() {
        let document: Value = serde_json::from_slice(&document()).expect("JSON");
        insta::assert_snapshot!(serde_json::to_string_pretty(&document).expect("JSON"));
    }

    type Reader = fn(&[u8]) -> bool;

    fn readers() -> Vec<(&'static str, Value, Reader)> {
        let messages = json!([{"role": "user", "content": "Hi"}]);
        vec![
            ("ChatRequest", json!({"messages": messages}), |it| openai_chat::parse(it).is_ok()),
            ("CompletionRequest", json!({"prompt": "Hi"}), |it| {
                openai_completions::parse(it).is_ok()
            }),
            ("ResponseRequest", json!({"input": "Hi"}), |it| openai_responses::parse(it).is_ok()),
            ("MessageRequest", json!({"messages": messages, "max_tokens": 5}), |it| {
                anthropic::parse(it).is_ok()
            }),
            ("CountRequest", json!({"messages": messages}), |it| {
                anthropic::parse_count(it).is_ok()
            }),
            ("EmbeddingsRequest", json!({"input": "Hi"}), |it| embeddings::parse(it).is_ok()),
            ("TokenizeRequest", json!({"prompt": "Hi"}), |it| {
                crate::tokenize::parse_tokenize(it).is_ok()
            }),
            ("DetokenizeRequest", json!({"tokens": [1]}), |it| {
                crate::tokenize::parse_detokenize(it).is_ok()
            }),
        ]
    }

    /// Each described field is one that its reader looks at, and what is required it requires.
    #[test]
    fn requests_are_read_as_they_are_described() {
        let document: Value = serde_json::from_slice(&document()).expect("JSON");
        for (name, mut body, reads) in readers() {
            body["model"] = "m".into();
            let accepts = |body: &Value| reads(body.to_string().as_bytes());
            assert!(accepts(&body), "{name}");
            let schema = &document["components"]["schemas"][name];
            let fields = schema["properties"].as_object().expect("properties");
            assert!(fields.len() >= 2, "{schema}");
            let required = schema["required"].as_array().expect("required fields");
            for field in fields.keys() {
                let mut wrong = body.clone();
                wrong[field] = json!({"no": "such thing"});
                assert!(!accepts(&wrong), "{name} does not look at {field}");
                let mut without = body.clone();
                without.as_object_mut().expect("an object").remove(field);
                let is_required = required.iter().any(|it| it == field);
                assert_eq!(accepts(&without), !is_required, "{field} of {name}");
            }
        }
    }

    /// Every reference leads somewhere.
    #[test]
    fn references_are_whole() {
        let text = String::from_utf8(document()).expect("UTF-8");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let references: Vec<&str> = text.split("\"$ref\":\"#").skip(1).collect();
        assert!(references.len() > 10);
        for reference in references {
            let pointer = reference.split('"').next().unwrap_or_default();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
