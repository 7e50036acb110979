//! The OpenAPI document of the inference routes.
//!
//! Answers are described by the types that are serialised; requests by types that stand beside
//! this, since bodies are read field by field. A test holds each of their fields against readers.

mod requests;

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{anthropic, embeddings, error, models, tokenize};
use crate::{openai_chat, openai_completions, openai_responses};
use requests::{
    ChatRequest, CompletionRequest, CountRequest, DetokenizeRequest, EmbeddingsRequest,
    MessageRequest, ResponseRequest, TokenizeRequest,
};

/// The document, as a JSON body.
pub fn document() -> Vec<u8> {
    let requests = &mut settings().for_deserialize().into_generator();
    let answers = &mut settings().for_serialize().into_generator();
    let paths = paths(requests, answers);
    let mut schemas = requests.take_definitions(true);
    for (name, schema) in answers.take_definitions(true) {
        let known = schemas.insert(name.clone(), schema);
        debug_assert!(known.is_none(), "{name} describes a request and an answer");
    }
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
    let refusal = error::schema(it).to_value();
    let anthropic_refusal = anthropic::error_schema(it).to_value();
    type Make = fn(&mut SchemaGenerator) -> Schema;
    let posts: [(&str, Make, Schema, &Value); 8] = [
        (
            "/v1/chat/completions",
            SchemaGenerator::subschema_for::<ChatRequest>,
            openai_chat::schema(it),
            &refusal,
        ),
        (
            "/v1/completions",
            SchemaGenerator::subschema_for::<CompletionRequest>,
            openai_completions::schema(it),
            &refusal,
        ),
        (
            "/v1/responses",
            SchemaGenerator::subschema_for::<ResponseRequest>,
            openai_responses::schema(it),
            &refusal,
        ),
        (
            "/v1/messages",
            SchemaGenerator::subschema_for::<MessageRequest>,
            anthropic::schema(it),
            &anthropic_refusal,
        ),
        (
            "/v1/messages/count_tokens",
            SchemaGenerator::subschema_for::<CountRequest>,
            anthropic::count_schema(it),
            &anthropic_refusal,
        ),
        (
            "/v1/embeddings",
            SchemaGenerator::subschema_for::<EmbeddingsRequest>,
            embeddings::schema(it),
            &refusal,
        ),
        (
            "/tokenize",
            SchemaGenerator::subschema_for::<TokenizeRequest>,
            tokenize::tokens_schema(it),
            &refusal,
        ),
        (
            "/detokenize",
            SchemaGenerator::subschema_for::<DetokenizeRequest>,
            tokenize::text_schema(it),
            &refusal,
        ),
    ];
    let mut paths = Map::new();
    for (path, request, answer, refusal) in posts {
        let request = request(requests).to_value();
        paths.insert(path.to_owned(), post(path, &request, answer.as_value(), refusal));
    }
    let refusals = json!({"anyOf": [refusal, anthropic_refusal]});
    paths.extend(models_paths(it, &refusals));
    paths.extend(state_paths());
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

/// Both shapes: Anthropic's is for requests with its version.
fn models_paths(it: &mut SchemaGenerator, refusals: &Value) -> [(String, Value); 2] {
    let [list, one, anthropic_list, anthropic_one] = models::schemas(it).map(Schema::to_value);
    let version = json!({"name": "anthropic-version", "in": "header", "required": false,
        "schema": {"type": "string", "enum": ["2023-06-01"]}});
    let id = json!({"name": "id", "in": "path", "required": true,
        "schema": {"type": "string", "minLength": 1}});
    let get = |one: Value, other: Value, parameters: Value| {
        let answered = content("application/json", &json!({"anyOf": [one, other]}));
        let refused = content("application/json", refusals);
        json!({"get": {"parameters": parameters, "responses": {
            "200": {"description": "what is served", "content": answered},
            "4XX": {"description": "refused", "content": refused},
        }}})
    };
    [
        ("/v1/models".to_owned(), get(list, anthropic_list, json!([version]))),
        ("/v1/models/{id}".to_owned(), get(one, anthropic_one, json!([id, version]))),
    ]
}

/// What both programs tell of themselves; each adds fields of its own.
fn state_paths() -> [(String, Value); 3] {
    let health = json!({"type": "object", "required": ["status"],
        "properties": {"status": {"enum": ["ok", "unavailable"]}}});
    let version = json!({"type": "object", "required": ["version"],
        "properties": {"version": {"type": "string"}}});
    let get = |description: &str, schema: &Value| {
        let content = content("application/json", schema);
        json!({"description": description, "content": content})
    };
    let unavailable = get("nothing can be served", &health);
    let document = json!({"type": "object", "required": ["openapi", "paths"]});
    [
        (
            "/health".to_owned(),
            json!({"get": {"responses": {
            "200": get("it can serve", &health), "503": unavailable}}}),
        ),
        (
            "/version".to_owned(),
            json!({"get": {"responses": {
            "200": get("what runs here", &version)}}}),
        ),
        (
            "/openapi.json".to_owned(),
            json!({"get": {"responses": {
            "200": get("this document", &document)}}}),
        ),
    ]
}

fn content(kind: &str, schema: &Value) -> Value {
    json!({ kind: {"schema": schema} })
}

#[cfg(test)]
mod tests;
