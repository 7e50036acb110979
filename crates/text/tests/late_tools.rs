//! A tool that joins late leaves the prompt before it as it was, so that a prefix cache knows it.

use dialog::{
    Defaults, GenerateRequest, Json, Message, Part, Prompt, Role, ToolCall, ToolChoice, ToolSpec,
};
use text::{Prepared, SpecialTokens, Template, TextModel, Tokenizer};

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the fixture is in the repository")
}

fn model(template: &str) -> TextModel {
    let tokenizer = Tokenizer::from_json(fixture("tokenizer.json").as_bytes()).expect("in order");
    let template = Template::new(&fixture(template), SpecialTokens::default()).expect("compiles");
    TextModel::new(tokenizer, Some(template), Vec::new(), Defaults::default())
}

fn tool(name: &str, is_deferred: bool) -> ToolSpec {
    let parameters = Some(Json("{\"type\": \"object\", \"step\": 1.0}".to_owned()));
    ToolSpec { parameters, is_deferred, ..ToolSpec::new(name) }
}

fn shown(model: &TextModel, prepared: &Prepared) -> String {
    let bytes = prepared.tokens.iter().flat_map(|id| model.tokenizer.token_bytes(*id));
    String::from_utf8(bytes.copied().collect()).expect("a prompt is text")
}

/// A question, a search that found `late`, and its call.
fn conversation() -> Vec<Message> {
    let call = |id: &str, name: &str| {
        let arguments = Json("{}".to_owned());
        let call = ToolCall { id: id.to_owned(), name: name.to_owned(), arguments };
        Message {
            tool_calls: vec![call],
            content: Vec::new(),
            ..Message::text(Role::Assistant, "")
        }
    };
    let result = |id: &str, content: Vec<Part>| Message {
        tool_call_id: Some(id.to_owned()),
        content,
        ..Message::text(Role::Tool, "")
    };
    vec![
        Message::text(Role::User, "What is scheduled?"),
        call("c1", "search"),
        result("c1", vec![Part::Text("Found:".to_owned()), Part::Tool("late".to_owned())]),
        call("c2", "late"),
        result("c2", vec![Part::Text("nothing".to_owned())]),
    ]
}

fn request(turns: usize, tools: &[ToolSpec]) -> GenerateRequest {
    let messages = conversation().into_iter().take(turns).collect();
    let tools = tools.to_vec();
    GenerateRequest { tools, ..GenerateRequest::new("m", Prompt::Chat(messages)) }
}

#[test]
fn what_was_said_before_a_tool_joined_stays_as_it_was() {
    for template in ["sprout.jinja", "xml_calls.jinja", "qwen/qwen3.jinja", "qwen/qwen3_6.jinja"] {
        let model = model(template);
        // As agents send it: the tool stands among the others, in the order of the alphabet.
        let before = [tool("edit", false), tool("search", false)];
        let after = [tool("edit", false), tool("late", true), tool("search", false)];
        let first = model.prepare(&request(1, &before)).expect("a prompt");
        let second = model.prepare(&request(3, &after)).expect("a prompt");
        let third = model.prepare(&request(5, &after)).expect("a prompt");
        for (earlier, later) in [(&first, &second), (&second, &third)] {
            // The answer begins behind the last control token of a prompt.
            let known = *earlier.boundaries.last().expect("a boundary") as usize;
            assert_eq!(earlier.tokens[..known], later.tokens[..known], "{template}");
        }
        let text = shown(&model, &second);
        let told = "Found:\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"late\", \
                    \"parameters\": {\"type\": \"object\", \"step\": 1.0}}}\n</tools>";
        assert!(text.contains(told), "{text}");
        assert_eq!(text.matches("\"late\"").count(), 1, "{text}");
    }
}

#[test]
fn a_tool_that_nobody_told_of_is_not_shown_and_cannot_be_required() {
    let model = model("sprout.jinja");
    let tools = [tool("edit", false), tool("late", true)];
    let mut first = request(1, &tools);
    let alone = request(1, &tools[..1]);
    let prepared = model.prepare(&first).expect("a prompt");
    assert_eq!(prepared, model.prepare(&alone).expect("a prompt"));
    first.tool_choice = ToolChoice::Required;
    let grammar = model.grammar(&first, &prepared).expect("in order").expect("calls are required");
    assert!(grammar.contains("edit") && !grammar.contains("late"), "{grammar}");
    let mut second = request(3, &tools);
    second.tool_choice = ToolChoice::Required;
    let prepared = model.prepare(&second).expect("a prompt");
    let grammar = model.grammar(&second, &prepared).expect("in order").expect("required");
    assert!(grammar.contains("late"), "{grammar}");
}
