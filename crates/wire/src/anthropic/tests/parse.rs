use dialog::{GenerateRequest, Json, Message, Part, Prompt, Reasoning, Role, ToolChoice};
use serde_json::{Value, json};

use crate::anthropic::{ReplyOptions, parse, parse_count, signature};
use crate::{Dialect, WireError};

fn body(more: &Value) -> Vec<u8> {
    let mut body = json!({
        "model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]
    });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body.to_string().into_bytes()
}

fn read(more: &Value) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    parse(&body(more))
}

pub(super) fn accepted(more: &Value) -> GenerateRequest {
    read(more).unwrap_or_else(|error| panic!("{more}: {error}")).0
}

pub(super) fn turns(request: GenerateRequest) -> Vec<Message> {
    match request.prompt {
        Prompt::Chat(turns) => turns,
        other => panic!("{other:?}"),
    }
}

pub(super) fn param(more: &Value) -> String {
    let error = read(more).map(|_| ()).expect_err(&format!("{more} was accepted"));
    assert!(error.to_string().len() < 400 && !error.to_string().contains("::"), "{error}");
    error.param().unwrap_or_default().to_owned()
}

#[test]
fn parameters_are_honoured() {
    let (request, reply) = read(&json!({
        "max_tokens": 32000, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stream": true,
        "stop_sequences": ["a", "b", "c", "d", "e"], "metadata": {"user_id": "u"}, "seed": 4,
    }))
    .expect("accepted");
    assert_eq!((request.max_tokens, request.fit_context), (Some(32000), true));
    assert_eq!((request.sampling.temperature, request.sampling.top_k), (Some(0.5), Some(40)));
    assert_eq!((request.sampling.seed, request.stop.len()), (Some(4), 5));
    assert_eq!(reply, ReplyOptions { stream: true });
}

// Requirement 124: the shapes of Claude Code
#[test]
fn agents_are_tolerated() {
    let request = accepted(&json!({
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=0a1;"},
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        ],
        "thinking": {"type": "adaptive"}, "context_management": {"edits": [{}]},
        "output_config": {"effort": "high"}, "mcp_servers": [], "container": null,
        "tools": [
            {"name": "Read", "description": "d", "input_schema": {"type": "object", "n": 1.0},
                "cache_control": {"type": "ephemeral"}},
            {"type": "custom", "name": "Write", "input_schema": {}},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
            {"type": "computer_20250124", "name": 5},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi",
                "cache_control": {"type": "ephemeral"}}]},
            {"role": "system", "content": "Be brief."},
        ],
    }));
    let names: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!((names, &request.tool_choice), (vec!["Read", "Write"], &ToolChoice::Auto));
    let schema = request.tools[0].parameters.clone();
    assert_eq!(schema, Some(Json("{\"type\":\"object\",\"n\":1.0}".to_owned())));
    assert_eq!(request.reasoning, Reasoning::ModelDefault);
    // Requirement 18
    let wanted = [
        Message::text(Role::System, "You are an agent."),
        Message::text(Role::System, "Be brief."),
        Message::text(Role::User, "Hi"),
    ];
    assert_eq!(turns(request), wanted);
}

// Requirement 131
#[test]
fn two_turns_of_a_session_have_one_beginning() {
    let prompt = |cch: &str| {
        let billing = format!("x-anthropic-billing-header: cc_version=2.1.36; cch={cch};");
        let blocks = json!([{"type": "text", "text": billing}, {"type": "text", "text": "S"}]);
        accepted(&json!({ "system": blocks })).prompt
    };
    assert_eq!(prompt("1f2"), prompt("9ab"));
    let kept = "x-anthropic-billing-header: is a header\nand this is an instruction";
    let blocks = json!([{"type": "text", "text": kept}]);
    assert_eq!(turns(accepted(&json!({ "system": blocks })))[0].joined_text(), kept);
    let words = accepted(&json!({"system": "About x-anthropic-billing-header: nothing"}));
    assert_eq!(turns(words)[0].role, Role::System);
}

// Requirement 17
#[test]
fn calls_and_their_results_come_both_ways() {
    let ours = signature::of_model("m");
    let thinking =
        |signature: &str| json!({"type": "thinking", "thinking": "hm", "signature": signature});
    let turns = turns(accepted(&json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [
            thinking(&ours), thinking("EpAC=="), {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "Look:"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1.0}},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
            {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "text", "text": "There."},
            {"type": "tool_result", "tool_use_id": "t1", "content": "one", "is_error": true},
            {"type": "tool_result", "tool_use_id": "t2", "content": [
                {"type": "text", "text": "two"}, {"type": "tool_reference", "tool_name": "h"}]},
            {"type": "tool_result", "tool_use_id": "t3"},
        ]},
    ]})));
    let roles: Vec<Role> = turns.iter().map(|turn| turn.role).collect();
    use Role::{Assistant, Tool, User};
    assert_eq!(roles, [User, Assistant, Tool, Tool, Tool, User]);
    assert_eq!((turns[1].reasoning.as_deref(), &*turns[1].joined_text()), (Some("hm"), "Look:"));
    assert_eq!(turns[1].tool_calls.len(), 2);
    assert_eq!(turns[1].tool_calls[0].arguments, Json("{\"a\":1.0}".to_owned()));
    assert_eq!((turns[2].tool_call_id.as_deref(), &*turns[2].joined_text()), (Some("t1"), "one"));
    let reference = "two{\"type\":\"tool_reference\",\"tool_name\":\"h\"}";
    assert_eq!(turns[3].joined_text(), reference);
    assert_eq!((&*turns[4].joined_text(), &*turns[5].joined_text()), ("", "There."));
}

// Requirement 33: an image reaches the model's check instead of being dropped
#[test]
fn images_and_documents_are_read_or_refused() {
    let user = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let image = |source: Value| user(json!({"type": "image", "source": source}));
    let part = |more: &Value| turns(accepted(more)).remove(0).content.remove(0);
    let base64 = json!({"type": "base64", "media_type": "image/png", "data": "AA"});
    let shown = |url: &str| {
        let path = "messages[0].content[0]".to_owned();
        Part::Image { url: url.to_owned(), path }
    };
    assert_eq!(part(&image(base64)), shown("data:image/png;base64,AA"));
    let url = json!({"type": "url", "url": "https://x"});
    assert_eq!(part(&image(url)), shown("https://x"));
    let document = |source: Value| user(json!({"type": "document", "source": source}));
    let plain = json!({"type": "text", "media_type": "text/plain", "data": "words"});
    assert_eq!(part(&document(plain)), Part::Text("words".to_owned()));
    let pdf = json!({"type": "base64", "media_type": "application/pdf", "data": ""});
    assert_eq!(param(&document(pdf)), "messages[0].content[0].source.type");
}

// Requirement 23
#[test]
fn thinking_is_switched_by_its_field() {
    let reasoning = |thinking: Value| accepted(&json!({ "thinking": thinking })).reasoning;
    assert_eq!(accepted(&json!({})).reasoning, Reasoning::Off);
    assert_eq!(reasoning(json!({"type": "disabled"})), Reasoning::Off);
    assert_eq!(reasoning(json!({"type": "adaptive"})), Reasoning::ModelDefault);
    assert_eq!(reasoning(json!({"type": "enabled"})), Reasoning::On);
    // Requirement 23
    for kind in ["adaptive", "enabled"] {
        let hidden = json!({"type": kind, "display": "omitted"});
        assert_eq!(reasoning(hidden), Reasoning::Off, "{kind}");
    }
}

// robustness 30, 36 to 39, 53 to 57, 64, 65, 68 and 70 to 75
#[test]
fn what_is_wrong_or_not_done_is_named() {
    let cases = json!({
        "model": [null, "", 5], "max_tokens": [null, 0, -1, "9", 1.5, 2147483648_u64],
        "messages": [null, "", {}, []], "temperature": [-1, "hot", 2.1], "top_p": [0, 1.1],
        "top_k": [-2, 1.5], "stop_sequences": [5, [1], [""]], "stream": ["yes"], "n": [2],
        "system": [5, {}], "tools": [{}, "x"], "tool_choice": ["auto", {"type": "any"}],
        "thinking": [true], "echo": [true], "logit_bias": [[]],
    });
    for (field, values) in cases.as_object().expect("an object") {
        for value in values.as_array().expect("an array") {
            assert_eq!(&param(&json!({ field: value })), field, "{value}");
        }
    }
    let tool = |tool: Value| json!({ "tools": [tool] });
    let nested = [
        (json!({"thinking": {}}), "thinking.type"),
        (json!({"thinking": {"type": "on"}}), "thinking.type"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 9}}), "thinking.budget_tokens"),
        (json!({"tool_choice": {}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (json!({"tool_choice": {"type": "tool", "name": "f"}}), "tool_choice"),
        (
            json!({"output_config": {"format": {"type": "json_schema"}}}),
            "output_config.format.schema",
        ),
        (json!({"output_format": {"type": "json"}}), "output_format.type"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"system": [{"type": "image"}]}), "system[0].type"),
        (tool(json!(5)), "tools[0]"),
        (tool(json!({"input_schema": {}})), "tools[0].name"),
        (tool(json!({"name": "a b"})), "tools[0].name"),
        (tool(json!({"name": "x".repeat(129)})), "tools[0].name"),
        (tool(json!({"name": "f", "input_schema": 5})), "tools[0].input_schema"),
        (json!({"tools": [{"name": "f"}, {"name": "f"}]}), "tools[1].name"),
    ];
    for (more, path) in nested {
        assert_eq!(param(&more), path, "{more}");
    }
}

#[test]
fn broken_messages_name_their_path() {
    let user = |block: Value| json!({"role": "user", "content": [block]});
    let assistant = |block: Value| json!({"role": "assistant", "content": [block]});
    let turns = [
        (json!({}), "role"),
        (json!(123), ""),
        (json!({"role": "tool", "content": ""}), "role"),
        (json!({"role": "user"}), "content"),
        (json!({"role": "user", "content": 5}), "content"),
        (json!({"role": "assistant", "content": null}), "content"),
        (user(json!("x")), "content[0]"),
        (user(json!({})), "content[0].type"),
        (user(json!({"type": "video"})), "content[0].type"),
        (user(json!({"type": "text"})), "content[0].text"),
        (user(json!({"type": "image"})), "content[0].source"),
        (user(json!({"type": "image", "source": {"type": "file"}})), "content[0].source.type"),
        (user(json!({"type": "tool_result"})), "content[0].tool_use_id"),
        (assistant(json!({"type": "tool_use", "name": "f"})), "content[0].id"),
        (assistant(json!({"type": "tool_use", "id": "t"})), "content[0].name"),
        (
            assistant(json!({"type": "tool_use", "id": "t", "name": "f", "input": "x"})),
            "content[0].input",
        ),
        (assistant(json!({"type": "thinking"})), "content[0].thinking"),
    ];
    for (turn, path) in turns {
        let more = json!({"messages": [{"role": "user", "content": "Hi"}, turn]});
        assert_eq!(param(&more), format!("messages[1].{path}").trim_end_matches('.'), "{more}");
    }
    // Stated: an answer cannot be begun by the caller.
    let begun = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{"}]);
    assert_eq!(param(&json!({ "messages": begun })), "messages");
    // robustness 64: these are fine.
    accepted(&json!({"messages": [{"role": "assistant", "content": "a"},
        {"role": "user", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": ""}]}]}));
}

#[test]
fn a_count_needs_no_limit_and_sees_the_same_prompt() {
    let more = json!({"system": "S", "tools": [{"name": "f", "input_schema": {}}]});
    let counted = parse_count(&body(&more)).expect("accepted");
    let asked = accepted(&more);
    assert_eq!((&counted.prompt, &counted.tools), (&asked.prompt, &asked.tools));
    let bare = br#"{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}"#;
    assert!(parse_count(bare).is_ok());
    assert_eq!(parse(bare).map(|_| ()).expect_err("no limit").param(), Some("max_tokens"));
    assert_eq!(crate::anthropic::token_count(7), b"{\"input_tokens\":7}");
}

// robustness 21 to 24
#[test]
fn the_gateway_refuses_what_the_node_refuses() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    for bad in ["", "[]", "{\"model\": 5}", "{\"model\": \"m\"", &deep] {
        let error = parse(bad.as_bytes()).map(|_| ()).expect_err("refused");
        assert_eq!(Dialect::Anthropic.peek(bad.as_bytes()).expect_err("refused"), error);
    }
    let twice = br#"{"model": "a", "max_tokens": 1, "stream": true, "model": "b",
        "messages": [{"role": "user", "content": "Hi"}]}"#;
    let peeked = Dialect::Anthropic.peek(twice).expect("accepted");
    assert_eq!((&*peeked.model, peeked.stream, peeked.max_tokens), ("b", true, Some(1)));
    assert_eq!(parse(twice).expect("accepted").0.model, "b");
}
