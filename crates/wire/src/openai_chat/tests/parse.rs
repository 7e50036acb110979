use dialog::{
    AnswerFormat, GenerateRequest, Json, Message, Part, Prompt, Reasoning, Role, ToolChoice,
};
use serde_json::{Value, json};

use crate::error::openai;
use crate::openai_chat::{ReplyOptions, parse};
use crate::{WireError, peek};

fn body(more: &Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

fn read(more: &Value) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    parse(body(more).to_string().as_bytes())
}

fn accepted(more: &Value) -> GenerateRequest {
    read(more).unwrap_or_else(|error| panic!("{more}: {error}")).0
}

fn messages(turns: &Value) -> Vec<Message> {
    match accepted(&json!({ "messages": turns })).prompt {
        Prompt::Chat(messages) => messages,
        other => panic!("{other:?}"),
    }
}

/// The field that an error names and its message.
fn refused(more: &Value) -> (String, String) {
    let Err(error) = read(more) else { panic!("{more} was accepted") };
    let (status, envelope) = openai(&error);
    assert_eq!(status, 400);
    let envelope: Value = serde_json::from_slice(&envelope).expect("JSON");
    let inner = envelope["error"].as_object().expect("the envelope");
    let keys: Vec<&str> = inner.keys().map(String::as_str).collect();
    assert_eq!(keys, ["message", "type", "param", "code"]);
    let message = inner["message"].as_str().expect("a message").to_owned();
    assert!(message.len() < 400 && !message.contains("::"), "{message}");
    (inner["param"].as_str().unwrap_or_default().to_owned(), message)
}

#[test]
fn every_parameter_is_honoured() {
    let request = accepted(&json!({
        "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1,
        "repetition_penalty": 1.1, "presence_penalty": -1, "frequency_penalty": 2, "seed": 5,
        "logit_bias": {"9": -100, "3": 1.5}, "stop": ["a", "b"], "ignore_eos": true,
        "min_tokens": 2, "parallel_tool_calls": false, "n": 1, "logprobs": false,
        "response_format": {"type": "text"}, "user": "x", "metadata": {"deep": [[]]},
    }));
    let sampling = &request.sampling;
    assert_eq!((request.max_tokens, request.min_tokens), (Some(7), 2));
    assert_eq!((sampling.temperature, sampling.top_p), (Some(0.5), Some(0.9)));
    assert_eq!((sampling.top_k, sampling.min_p), (Some(40), Some(0.1)));
    assert_eq!(sampling.repetition_penalty, Some(1.1));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (Some(-1.0), Some(2.0)));
    assert_eq!((sampling.seed, &sampling.logit_bias[..]), (Some(5), &[(3, 1.5), (9, -100.0)][..]));
    assert_eq!((request.stop, request.ignore_eos), (vec!["a".to_owned(), "b".to_owned()], true));
    assert_eq!(accepted(&json!({"stop": "END"})).stop, ["END"]);
    assert_eq!(accepted(&json!({"top_k": -1})).sampling.top_k, Some(0));
}

// Requirement 2
#[test]
fn the_newer_limit_wins() {
    let both = json!({"max_tokens": 5, "max_completion_tokens": 9});
    assert_eq!(accepted(&both).max_tokens, Some(9));
    let peeked = peek(body(&both).to_string().as_bytes()).expect("a peek");
    assert_eq!(peeked.max_tokens, Some(9));
    assert_eq!(accepted(&json!({"max_completion_tokens": null})).max_tokens, None);
}

#[test]
fn the_reply_is_told_as_asked() {
    let options = |more: Value| read(&more).expect("accepted").1;
    let usage = json!({"include_usage": true});
    let streamed = options(json!({"stream": true, "stream_options": usage}));
    assert_eq!(streamed, ReplyOptions { stream: true, include_usage: true, choices: 1 });
    assert_eq!(options(json!({"stream_options": usage})), ReplyOptions::default());
    assert_eq!(options(json!({"stream": null, "stream_options": null})), ReplyOptions::default());
}

// Requirements 1 and 19
#[test]
fn messages_take_every_shape_that_agents_send() {
    let call = |arguments: Value| {
        let function = json!({"name": "f", "arguments": arguments});
        json!({"id": "c", "type": "function", "function": function})
    };
    let read = messages(&json!([
        {"role": "developer", "content": "D"},
        {"role": "system", "content": [{"type": "text", "text": "S"}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"},
            {"type": "image_url", "image_url": {"url": "data:x"}}], "name": "bob"},
        {"role": "assistant", "content": null, "tool_calls": [call(json!("{\"a\": 1.0}"))]},
        {"role": "assistant", "tool_calls": [call(json!({"a": 2})), call(json!(""))]},
        {"role": "tool", "tool_call_id": "c", "content": "\u{0}ok"},
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
    ]));
    let roles: Vec<Role> = read.iter().map(|message| message.role).collect();
    use Role::{Assistant, System, Tool, User};
    assert_eq!(roles, [System, System, User, Assistant, Assistant, Tool, Assistant]);
    assert_eq!(read[2].joined_text(), "ab");
    let path = "messages[2].content[2]".to_owned();
    assert_eq!(read[2].content[2], Part::Image { url: "data:x".to_owned(), path });
    assert_eq!(read[3].content, []);
    assert_eq!(read[3].tool_calls[0].arguments, Json("{\"a\": 1.0}".to_owned()));
    assert_eq!(read[4].tool_calls[0].arguments, Json("{\"a\":2}".to_owned()));
    assert_eq!(read[4].tool_calls[1].arguments, Json("{}".to_owned()));
    assert_eq!((read[5].tool_call_id.as_deref(), &*read[5].joined_text()), (Some("c"), "\0ok"));
    assert_eq!(read[6].reasoning.as_deref(), Some("hm"));
}

// Requirement 124
#[test]
fn tools_are_tolerated_as_agents_send_them() {
    let request = accepted(&json!({"tool_choice": "auto", "tools": [
        {"function": {"name": "f", "parameters": {"x": 1.0, "a": {}}}},
        {"type": "web_search"}, {"type": "namespace", "name": 5},
        {"type": "function", "function": {"name": "g", "description": "d", "strict": true}},
    ]}));
    let names: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["f", "g"]);
    let parameters = request.tools[0].parameters.as_ref().map(|json| json.0.as_str());
    assert_eq!(parameters, Some("{\"x\":1.0,\"a\":{}}"));
    assert_eq!(accepted(&json!({"tool_choice": "none"})).tool_choice, ToolChoice::None);
}

// Requirement 106
#[test]
fn what_binds_the_answer_reaches_the_request() {
    let tools = json!([{"function": {"name": "f", "strict": true}}]);
    let choice = |choice: Value| {
        accepted(&json!({"tools": tools.clone(), "tool_choice": choice})).tool_choice
    };
    assert_eq!(choice(json!("required")), ToolChoice::Required);
    let named = json!({"type": "function", "function": {"name": "f"}});
    assert_eq!(choice(named), ToolChoice::Named("f".to_owned()));
    let request = accepted(&json!({"tools": tools, "parallel_tool_calls": false}));
    assert!(request.tools[0].strict && !request.parallel_tool_calls);

    let format = |format: Value| accepted(&json!({"response_format": format})).format;
    assert_eq!(format(json!({"type": "text"})), None);
    assert_eq!(format(json!({"type": "json_object"})), Some(AnswerFormat::JsonObject));
    let schema = json!({"type": "json_schema", "json_schema":
        {"name": "n", "strict": true, "schema": {"type": "object", "n": 1.0}}});
    let want = Json("{\"type\":\"object\",\"n\":1.0}".to_owned());
    assert_eq!(format(schema), Some(AnswerFormat::JsonSchema(want)));
}

#[test]
fn several_answers_and_logprobs_are_asked_for() {
    let (request, reply) = read(&json!({"n": 3, "logprobs": true, "top_logprobs": 5})).unwrap();
    assert_eq!((request.choices, reply.choices, request.top_logprobs), (3, 3, Some(5)));
    assert_eq!(accepted(&json!({"logprobs": true})).top_logprobs, Some(0));
    assert_eq!(accepted(&json!({"logprobs": false, "top_logprobs": 0})).top_logprobs, None);
}

#[test]
fn reasoning_is_switched_in_every_way() {
    let reasoning = |more: Value| accepted(&more).reasoning;
    assert_eq!(reasoning(json!({})), Reasoning::ModelDefault);
    assert_eq!(reasoning(json!({"reasoning_effort": "none"})), Reasoning::Off);
    assert_eq!(reasoning(json!({"reasoning_effort": "minimal"})), Reasoning::On);
    assert_eq!(reasoning(json!({"thinking": {"type": "disabled"}})), Reasoning::Off);
    let mixed = json!({"reasoning_effort": "high", "chat_template_kwargs":
        {"enable_thinking": false, "note": [1.0]}});
    let request = accepted(&mixed);
    assert_eq!(request.reasoning, Reasoning::Off);
    assert_eq!(request.template_arguments, Some(Json("{\"note\":[1.0]}".to_owned())));
}

// robustness 30, 33 and 36 to 52
#[test]
fn values_out_of_range_name_their_field() {
    let cases = json!({
        "model": [null, "", 5], "temperature": [-1, 2.1, "hot", 1e300, true],
        "top_p": [0, -0.1, 1.1], "top_k": [-2, 1.5], "min_p": [2], "repetition_penalty": [0, -1],
        "max_tokens": [0, -1, 2147483648_u64, "8", 1.5, true], "max_completion_tokens": [0],
        "n": [0, 9], "stop": [[1], "", ["a", "b", "c", "d", "e"], 5, {}], "stream": ["yes", 1],
        "seed": [-1, 9223372036854775808_u64, 1.5], "logprobs": [3], "top_logprobs": [21, 1],
        "logit_bias": [[], {"abc": 1}], "presence_penalty": [2.1], "frequency_penalty": [-2.1],
        "echo": [true], "suffix": ["x"], "best_of": [2], "audio": [{}], "functions": [[{}]],
        "min_tokens": [-1], "reasoning_effort": ["ultra", 1], "response_format": [
            "text", 5],
        "stream_options": [5], "chat_template_kwargs": [[], "x"], "chat_template": ["{{ 1 }}"],
        "tools": [{}, "x"], "tool_choice": ["required", "maybe", 5,
            {"type": "function", "function": {"name": "f"}}, {"type": "custom"}],
        "parallel_tool_calls": ["no"], "ignore_eos": [0], "messages": [null, "", {}, []],
    });
    for (field, values) in cases.as_object().expect("an object") {
        for value in values.as_array().expect("an array") {
            let (param, message) = refused(&json!({ field: value }));
            assert_eq!(&param, field, "{value}: {message}");
            assert!(message.contains(field.as_str()), "{message}");
        }
    }
    assert_eq!(refused(&json!({"max_tokens": 2, "min_tokens": 3})).0, "min_tokens");
    assert_eq!(refused(&json!({"logit_bias": {"1": 101}})).0, "logit_bias.1");
    let format = |format: Value| refused(&json!({"response_format": format})).0;
    assert_eq!(format(json!({"type": "sound"})), "response_format.type");
    assert_eq!(format(json!({"type": "json_schema"})), "response_format.schema");
    let schema = json!({"type": "json_schema", "json_schema": {"schema": [1]}});
    assert_eq!(format(schema), "response_format.json_schema.schema");
    let (_, message) = refused(&json!({"temperature": 2.5}));
    assert_eq!(message, "temperature must be a number from 0 to 2, got 2.5");
    let (_, message) = refused(&json!({"stop": "x\n".repeat(60_000)}));
    assert!(message.ends_with("..."), "{message}");
}

// robustness 53 to 62 and 71
#[test]
fn broken_messages_and_tools_name_their_path() {
    let user = json!({"role": "user", "content": "Hi"});
    let calls = |call: Value| json!({"role": "assistant", "tool_calls": [call]});
    let function = |function: Value| json!({"id": "c", "function": function});
    let turns = [
        (json!({}), "role"),
        (json!(123), ""),
        (json!({"role": 123, "content": ""}), "role"),
        (json!({"role": "wizard", "content": ""}), "role"),
        (json!({"role": "user", "content": 123}), "content"),
        (json!({"role": "user", "content": null}), "content"),
        (json!({"role": "user", "content": []}), "content"),
        (json!({"role": "user", "content": [{"type": "video"}]}), "content[0].type"),
        (json!({"role": "user", "content": [{"type": "text"}]}), "content[0].text"),
        (json!({"role": "assistant", "content": null}), "content"),
        (json!({"role": "assistant", "tool_calls": []}), "content"),
        (json!({"role": "tool", "content": "x"}), "tool_call_id"),
        (calls(json!({"function": {"name": "f"}})), "tool_calls[0].id"),
        (calls(json!({"id": "c"})), "tool_calls[0].function"),
        (calls(function(json!({}))), "tool_calls[0].function.name"),
        (
            calls(function(json!({"name": "f", "arguments": "{oops"}))),
            "tool_calls[0].function.arguments",
        ),
        (
            calls(function(json!({"name": "f", "arguments": "[1]"}))),
            "tool_calls[0].function.arguments",
        ),
    ];
    for (turn, path) in turns {
        let (param, _) = refused(&json!({"messages": [user, turn]}));
        assert_eq!(param, format!("messages[1].{path}").trim_end_matches('.'), "{turn}");
    }
    let tools = [
        (json!([5]), "tools[0]"),
        (json!([{"type": "function"}]), "tools[0].function"),
        (json!([{"function": {}}]), "tools[0].function.name"),
        (json!([{"function": {"name": "a b"}}]), "tools[0].function.name"),
        (json!([{"function": {"name": "x".repeat(65)}}]), "tools[0].function.name"),
        (json!([{"function": {"name": "f", "parameters": 123}}]), "tools[0].function.parameters"),
        (
            json!([{"function": {"name": "f"}}, {"function": {"name": "f"}}]),
            "tools[1].function.name",
        ),
    ];
    for (tools, path) in tools {
        assert_eq!(refused(&json!({ "tools": tools })).0, path);
    }
}

fn error(body: &[u8]) -> WireError {
    let error = parse(body).map(|_| ()).expect_err("refused");
    assert_eq!(peek(body).expect_err("refused by the gateway too"), error);
    error
}

// robustness 2 and 21 to 27
#[test]
fn what_is_no_json_object_is_refused_alike_by_the_gateway() {
    assert_eq!(error(b""), WireError::EmptyBody);
    assert_eq!(error(b" \n"), WireError::EmptyBody);
    for body in ["[]", "42", "null", "\"x\"", "true"] {
        assert!(matches!(error(body.as_bytes()), WireError::NotAnObject { .. }));
    }
    let message = error(b"{\"model\": \"m\",\n \"messages\": [}").to_string();
    assert_eq!(message, "body is not valid JSON at line 2 column 15: expected value");
    for body in [&b"{\"model\": \"\xff\"}"[..], b"{\"model\": NaN}", b"{\"model\": \"m\"} x", b"{"]
    {
        assert!(matches!(error(body), WireError::Syntax { .. }));
    }
    let surrogate = error(br#"{"model": "\ud800"}"#);
    assert_eq!(surrogate.param(), Some("model"));
    assert!(parse(b"\xef\xbb\xbf{}").is_err_and(|error| error.param() == Some("model")));
}

// robustness 23
#[test]
fn no_depth_overflows_the_stack() {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    for nested in [deep("[", "]"), deep("{\"a\":", "}").replace(":}", ":1}")] {
        assert!(parse(nested.as_bytes()).is_err());
        let turn = "{\"role\": \"user\", \"content\": \"Hi\"}";
        let ignored = format!("{{\"model\": \"m\", \"x\": {nested}, \"messages\": [{turn}]}}");
        assert!(parse(ignored.as_bytes()).is_ok());
        let asked = format!("{{\"model\": \"m\", \"messages\": {nested}}}");
        assert!(parse(asked.as_bytes()).is_err());
        let tool =
            format!("{{\"function\": {{\"name\": \"f\", \"parameters\": {{\"a\": {nested}}}}}}}");
        let tools = format!("{{\"model\": \"m\", \"messages\": [{turn}], \"tools\": [{tool}]}}");
        let error = parse(tools.as_bytes()).expect_err("too deep");
        assert_eq!(error.param(), Some("tools[0].function.parameters"));
    }
}

// robustness 24
#[test]
fn of_duplicate_keys_the_last_one_wins_everywhere() {
    let body = br#"{"model": "a", "stream": false, "messages": [{"role": "user", "role": "system",
        "content": "x", "content": "y"}], "model": "b", "stream": true}"#;
    let (request, options) = parse(body).expect("accepted");
    let peeked = peek(body).expect("accepted");
    assert_eq!((request.model.as_str(), options.stream), ("b", true));
    assert_eq!((peeked.model.as_str(), peeked.stream), ("b", true));
    assert_eq!(request.prompt, Prompt::Chat(vec![Message::text(Role::System, "y")]));
}
