use dialog::{GenerateRequest, Json, Message, Part, Prompt, Reasoning, Role};
use serde_json::{Value, json};

use crate::openai_responses::{ReplyOptions, parse};
use crate::{Dialect, ErrorBody, WireError};

fn read(more: &Value) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    let mut body = json!({"model": "m", "input": "Hi"});
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    parse(body.to_string().as_bytes())
}

fn accepted(more: &Value) -> GenerateRequest {
    read(more).unwrap_or_else(|error| panic!("{more}: {error}")).0
}

fn turns(input: &Value) -> Vec<Message> {
    match accepted(&json!({ "input": input })).prompt {
        Prompt::Chat(turns) => turns,
        other => panic!("{other:?}"),
    }
}

fn param(more: &Value) -> String {
    let error = read(more).map(|_| ()).expect_err(&format!("{more} was accepted"));
    error.param().unwrap_or_default().to_owned()
}

// Requirement 124: the shapes of Codex
#[test]
fn agents_are_tolerated() {
    let (request, reply) = read(&json!({
        "instructions": "I", "store": false, "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k", "client_metadata": {"a": [1]}, "parallel_tool_calls": false,
        "stream": true, "text": {"verbosity": "low"}, "truncation": "auto",
        "reasoning": {"effort": "high", "summary": "auto"}, "tool_choice": "auto",
        "tools": [
            {"type": "function", "name": "shell", "description": "d", "strict": false,
                "parameters": {"type": "object", "n": 1.0}},
            {"type": "namespace", "name": "mcp", "tools": []}, {"type": "web_search"},
            {"type": "function", "function": {"name": "nested", "parameters": {}}},
        ],
        "input": [
            {"type": "message", "role": "developer",
                "content": [{"type": "input_text", "text": "D"}]},
            {"role": "developer", "content": "E"},
            {"role": "user", "content": [{"type": "input_text", "text": "U"}]},
        ],
    }))
    .expect("accepted");
    let names: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["shell", "nested"]);
    let schema = Json("{\"type\":\"object\",\"n\":1.0}".to_owned());
    assert_eq!(request.tools[0].parameters, Some(schema));
    assert_eq!((request.reasoning, reply.stream), (Reasoning::On, true));
    let system = |text: &str| Message::text(Role::System, text);
    let wanted = vec![system("I"), system("D"), system("E"), Message::text(Role::User, "U")];
    assert_eq!(request.prompt, Prompt::Chat(wanted));
}

// Requirement 11
#[test]
fn items_become_turns() {
    let call = |id: &str| {
        json!({"type": "function_call", "id": "fc", "call_id": id, "name": "f",
            "arguments": "{\"a\": 1.0}"})
    };
    let read = turns(&json!([
        {"role": "user", "content": "a"},
        {"type": "reasoning", "id": "rs_1", "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "status": "completed", "id": "msg_1",
            "content": [{"type": "output_text", "text": "Look:", "annotations": []}]},
        call("c1"), call("c2"),
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2",
            "output": [{"type": "input_text", "text": "two"}, {"type": "whatever"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "x", "content": null},
        {"type": "web_search_call", "id": "ws", "status": "completed"},
        {"type": "item_reference", "id": "x"},
        call("c3"),
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]},
    ]));
    use Role::{Assistant, Tool, User};
    let roles: Vec<Role> = read.iter().map(|turn| turn.role).collect();
    assert_eq!(roles, [User, Assistant, Tool, Tool, Assistant, User]);
    assert_eq!((read[1].reasoning.as_deref(), &*read[1].joined_text()), (Some("hm"), "Look:"));
    let ids: Vec<&str> = read[1].tool_calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!((ids, read[4].tool_calls.len()), (vec!["c1", "c2"], 1));
    // Requirement 19
    assert_eq!(read[1].tool_calls[0].arguments, Json("{\"a\": 1.0}".to_owned()));
    assert_eq!((read[2].tool_call_id.as_deref(), &*read[3].joined_text()), (Some("c1"), "two"));
    let path = "input[11].content[0]".to_owned();
    assert_eq!(read[5].content, [Part::Image { url: "data:x".to_owned(), path }]);
}

#[test]
fn an_empty_probe_is_a_question() {
    let empty = [Message::text(Role::User, "")];
    assert_eq!(turns(&json!([])), empty);
    assert_eq!(turns(&json!("")), empty);
    let probe = accepted(&json!({"input": [], "max_output_tokens": 1}));
    assert_eq!((probe.max_tokens, probe.fit_context), (Some(1), true));
}

// robustness 69
#[test]
fn nothing_earlier_can_be_named() {
    let error = read(&json!({"previous_response_id": "resp_\n1"})).expect_err("refused");
    let body = ErrorBody::from(&error);
    assert_eq!((body.status, body.code), (400, Some("previous_response_not_found")));
    assert!(body.message.contains("resp_\\n1"), "{}", body.message);
    accepted(&json!({"previous_response_id": null, "store": true}));
}

#[test]
fn reasoning_follows_the_effort() {
    let reasoning = |effort: Value| accepted(&json!({"reasoning": {"effort": effort}})).reasoning;
    assert_eq!(accepted(&json!({})).reasoning, Reasoning::ModelDefault);
    assert_eq!(reasoning(Value::Null), Reasoning::ModelDefault);
    assert_eq!(reasoning(json!("none")), Reasoning::Off);
    assert_eq!(reasoning(json!("minimal")), Reasoning::On);
}

// robustness 30, 36 to 39, 52, 55 to 62 and 69 to 76
#[test]
fn what_is_wrong_or_not_done_is_named() {
    let cases = json!({
        "model": [null, "", 5], "input": [null, 5, {}, true], "instructions": [5, []],
        "max_output_tokens": [0, -1, "8", 1.5], "temperature": [-1, 2.1], "top_p": [0],
        "background": [true], "conversation": ["c"], "prompt": [{"id": "p"}], "store": ["no"],
        "stream": ["yes"], "tools": [{}], "tool_choice": ["required", "x", 5,
            {"type": "function", "name": "f"}, {"type": "web_search"}],
        "include": ["x"], "top_logprobs": [3, 21],
        "metadata": [[], 5], "reasoning": ["high"], "text": [5], "parallel_tool_calls": [1],
    });
    for (field, values) in cases.as_object().expect("an object") {
        for value in values.as_array().expect("an array") {
            assert_eq!(&param(&json!({ field: value })), field, "{value}");
        }
    }
    let one = |item: Value| json!({ "input": [item] });
    let nested = [
        (one(json!(5)), "input[0]"),
        (one(json!({})), "input[0].role"),
        (one(json!({"role": "wizard", "content": ""})), "input[0].role"),
        (one(json!({"role": "user"})), "input[0].content"),
        (one(json!({"role": "user", "content": 5})), "input[0].content"),
        (one(json!({"role": "user", "content": [5]})), "input[0].content[0]"),
        (one(json!({"role": "user", "content": [{}]})), "input[0].content[0].type"),
        (
            one(json!({"role": "user", "content": [{"type": "input_file"}]})),
            "input[0].content[0].type",
        ),
        (one(json!({"type": "function_call", "name": "f"})), "input[0].call_id"),
        (one(json!({"type": "function_call", "call_id": "c"})), "input[0].name"),
        (
            one(json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"})),
            "input[0].arguments",
        ),
        (one(json!({"type": "function_call_output", "output": ""})), "input[0].call_id"),
        (one(json!({"type": "function_call_output", "call_id": "c"})), "input[0].output"),
        (json!({"reasoning": {"effort": "ultra"}}), "reasoning.effort"),
        (json!({"text": {"format": {"type": "json_schema"}}}), "text.format.schema"),
        (json!({"text": {"format": {"type": "sound"}}}), "text.format.type"),
        (json!({"metadata": {"k": 5}}), "metadata.k"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].name"),
        (json!({"tools": [{"name": "f"}, {"name": "f"}]}), "tools[1].name"),
    ];
    for (more, path) in nested {
        assert_eq!(param(&more), path, "{more}");
    }
}

// Requirement 2
#[test]
fn the_gateway_sees_the_same_limit() {
    let body = br#"{"model": "m", "input": "", "max_output_tokens": 5, "max_tokens": 9}"#;
    let peeked = Dialect::OpenaiResponses.peek(body).expect("accepted");
    assert_eq!(peeked.max_tokens, Some(5));
    assert_eq!(parse(body).expect("accepted").0.max_tokens, Some(5));
}
