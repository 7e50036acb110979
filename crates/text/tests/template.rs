//! Rendered prompts, byte for byte as transformers renders them.

use dialog::{Json, Message, Part, Role, ToolCall, ToolSpec};
use serde_json::Value;
use text::{RenderOptions, SpecialTokens, Template, TextError};

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the fixture is in the repository")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn message(turn: &Value) -> Message {
    let calls = turn["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    let call = |call: &Value| ToolCall {
        id: text(&call["id"]),
        name: text(&call["function"]["name"]),
        arguments: Json(call["function"]["arguments"].to_string()),
    };
    Message {
        role: match turn["role"].as_str() {
            Some("system") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            _ => Role::Tool,
        },
        content: vec![Part::Text(text(&turn["content"]))],
        reasoning: turn["reasoning_content"].as_str().map(str::to_owned),
        tool_calls: calls.iter().map(call).collect(),
        tool_call_id: turn["tool_call_id"].as_str().map(str::to_owned),
        is_error: turn["is_error"] == true,
    }
}

fn tool(tool: &Value) -> ToolSpec {
    let function = &tool["function"];
    ToolSpec {
        description: function["description"].as_str().map(str::to_owned),
        parameters: function.get("parameters").map(|schema| Json(schema.to_string())),
        ..ToolSpec::new(text(&function["name"]))
    }
}

fn all<T>(values: &Value, read: fn(&Value) -> T) -> Vec<T> {
    values.as_array().expect("an array").iter().map(read).collect()
}

// Requirements 19, 35 and 125
#[test]
fn prompts_equal_those_of_transformers() {
    let cases: Vec<Value> = serde_json::from_str(&fixture("templates.json")).expect("JSON");
    assert!(cases.len() > 20);
    for case in &cases {
        let options = case["options"].as_object().expect("an object");
        let bos = options.get("bos_token").map(text);
        let source = fixture(&text(&case["template"]));
        let special_tokens = SpecialTokens { bos, ..SpecialTokens::default() };
        let template = Template::new(&source, special_tokens).expect("the template compiles");
        let note = options.get("note").map(|note| Json(format!("{{\"note\": {note}}}")));
        let rendered = template.render(
            &all(&case["messages"], message),
            &all(&case["tools"], tool),
            &RenderOptions {
                add_generation_prompt: options.get("add_generation_prompt").is_some(),
                enable_thinking: options.get("enable_thinking").and_then(Value::as_bool),
                arguments: note.as_ref(),
            },
        );
        let expected = match &case["raised"] {
            Value::String(message) => Err(TextError::Refused(message.clone())),
            _ => Ok(text(&case["rendered"])),
        };
        assert_eq!(rendered, expected, "{} of {}", case["name"], case["template"]);
    }
}

fn render(source: &str, messages: &[Message]) -> Result<String, TextError> {
    let template = Template::new(source, SpecialTokens::default())?;
    template.render(messages, &[], &RenderOptions::default())
}

// Requirement 124
#[test]
fn system_messages_become_one_at_the_front() {
    let source = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}";
    let messages = [
        Message::text(Role::User, "u"),
        Message::text(Role::System, "one"),
        Message::text(Role::Assistant, "a"),
        Message::text(Role::System, "two"),
    ];
    let rendered = render(source, &messages);
    assert_eq!(rendered.as_deref(), Ok("[system:one\n\ntwo][user:u][assistant:a]"));
}

#[test]
fn a_template_cannot_run_away() {
    let turns = [Message::text(Role::User, "u")];
    let forever =
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    assert_eq!(render(forever, &turns), Err(TextError::TooLarge));
    let doubling = "{% set ns = namespace(s='x' * 1000) %}\
                    {% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}";
    assert!(render(doubling, &turns).is_err());
    let output = "{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}";
    assert_eq!(render(output, &turns), Err(TextError::TooLarge));
    let recursion = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(matches!(render(recursion, &turns), Err(TextError::RenderFailed(_))));
    assert!(render("{% include '/etc/passwd' %}", &turns).is_err());
}

// Requirement 35: Qwen3-Coder's template asks this of tools that are not there.
#[test]
fn nothing_is_not_iterable() {
    let source = "{% if tools is iterable and tools | length > 0 %}some{% else %}none{% endif %}";
    assert_eq!(render(source, &[Message::text(Role::User, "u")]).as_deref(), Ok("none"));
}

#[test]
fn mistakes_say_where() {
    let error = Template::new("a\n{% if %}", SpecialTokens::default()).map(|_| ());
    let Err(TextError::BadTemplate(message)) = error else { panic!("{error:?}") };
    assert!(message.contains(":2"), "{message}");
}

#[test]
fn arguments_cannot_replace_what_the_server_passes() {
    let template = Template::new("{{ messages }}", SpecialTokens::default()).expect("compiles");
    let arguments = Json("{\"messages\": []}".to_owned());
    let options = RenderOptions { arguments: Some(&arguments), ..RenderOptions::default() };
    let rendered = template.render(&[Message::text(Role::User, "u")], &[], &options);
    assert_eq!(rendered, Err(TextError::ReservedArgument("messages".to_owned())));
}

// robustness 66
#[test]
fn ten_thousand_messages_render() {
    let messages: Vec<Message> = (0..10_000)
        .map(|at| {
            let role = if at % 2 == 0 { Role::User } else { Role::Assistant };
            Message::text(role, format!("message {at}"))
        })
        .collect();
    for name in ["xml_calls.jinja", "sprout.jinja"] {
        let rendered = render(&fixture(name), &messages).expect("within the fuel");
        assert!(rendered.contains("message 9999"));
    }
}
