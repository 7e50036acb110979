use dialog::Json;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tools() -> Vec<ToolSpec> {
    let schema = json!({"type": "object", "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "ratio": {"type": "number"},
        "deep": {"type": "object"},
        "list": {"anyOf": [{"type": "array"}, {"type": "null"}]},
        "flag": {"type": ["boolean", "null"]},
        "maybe": {"type": ["string", "null"]},
    }});
    let parameters = Some(Json(schema.to_string()));
    vec![ToolSpec { name: "f".to_owned(), description: None, parameters, strict: false }]
}

/// Everything said, neighbouring texts joined.
fn run(pieces: &[&str]) -> Vec<Said> {
    let mut parser = ToolCallParser::new(tools());
    let mut said: Vec<Said> = Vec::new();
    let pushed: Vec<Said> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    for piece in pushed.into_iter().chain(parser.finish()) {
        match (said.last_mut(), piece) {
            (Some(Said::Text(before)), Said::Text(text)) => before.push_str(&text),
            (_, piece) => said.push(piece),
        }
    }
    said
}

fn words(text: &str) -> Said {
    Said::Text(text.to_owned())
}

fn call(name: &str, arguments: &serde_json::Value) -> Said {
    Said::Call(ParsedCall { name: name.to_owned(), arguments: arguments.to_string() })
}

// Requirement 16
#[test]
fn calls_are_read_from_json() {
    let said =
        run(&["Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Z\"}}\n\
                      </tool_call>\n<tool_call>{\"name\": \"g\"}</tool_call>\n"]);
    let expected = [words("Let me see."), call("f", &json!({"city": "Z"})), call("g", &json!({}))];
    assert_eq!(said, expected);
    let said =
        run(&["<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"days\\\": 1}\"}</tool_call>"]);
    assert_eq!(said, [call("f", &json!({"days": 1}))]);
}

// Requirement 16
#[test]
fn calls_are_read_from_xml_with_the_types_of_the_schema() {
    let said = run(&["<tool_call>\n<function=f>\n<parameter=city>\n12\n</parameter>\n\
        <parameter=days>\n3\n</parameter>\n<parameter=ratio>2.5</parameter>\n\
        <parameter=deep>{\"a\": [1]}</parameter><parameter=list>null</parameter>\
        <parameter=flag>True</parameter><parameter=maybe>None</parameter>\
        <parameter=free>\n line\n\nline \n</parameter>\n</function>\n</tool_call> Done."]);
    let arguments = json!({
        "city": "12", "days": 3, "ratio": 2.5, "deep": {"a": [1]}, "list": null, "flag": true,
        "maybe": null, "free": " line\n\nline ",
    });
    assert_eq!(said, [call("f", &arguments), words(" Done.")]);
    let said =
        run(&["<tool_call><function=f><parameter=days>many</parameter></function></tool_call>"]);
    assert_eq!(said, [call("f", &json!({"days": "many"}))]);
}

#[test]
fn markers_inside_of_values_do_not_end_a_call() {
    let said = run(&[
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"city\": \"</tool_call>\"}}</tool_call>",
    ]);
    assert_eq!(said, [call("f", &json!({"city": "</tool_call>"}))]);
    let said = run(&["<tool_call><function=f><parameter=city></tool_call></parameter> \
                      </parameter></function></tool_call>"]);
    assert_eq!(said, [call("f", &json!({"city": "</tool_call></parameter> "}))]);
}

// Requirement 14
#[test]
fn blocks_that_make_no_call_stay_visible() {
    for text in [
        "a <tool_call>{\"name\": \"f\", \"argum",
        "a <tool_call>not json</tool_call> b",
        "a <tool_call>{\"name\": 1}</tool_call>",
        "a <tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call> ",
        "a <tool_call><function=f><parameter=x>1</parameter>",
        "a <tool_call><function=f>junk</function></tool_call>",
        "a <tool_call><function=></function></tool_call>",
        "a < b <tool",
        "<tool_call></tool_call>",
    ] {
        assert_eq!(run(&[text]), [words(text)]);
    }
}

#[test]
fn text_is_held_back_only_while_it_may_be_a_marker() {
    let mut parser = ToolCallParser::new(tools());
    assert_eq!(parser.push("a <tool"), [words("a")]);
    assert_eq!(parser.push("box> b"), [words(" <toolbox> b")]);
    assert!(!parser.called());
}

#[test]
fn without_tools_everything_is_text() {
    let mut parser = ToolCallParser::new(Vec::new());
    let text = "<tool_call>{\"name\": \"f\"}</tool_call>";
    assert_eq!(parser.push(text), [words(text)]);
}

proptest! {
    // Equality E8
    #[test]
    fn any_split_says_the_same(
        parts in prop::collection::vec(prop::sample::select(PARTS), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let whole = parts.concat();
        let letters: Vec<char> = whole.chars().collect();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(letters.len() + 1)).collect();
        at.extend([0, letters.len()]);
        at.sort_unstable();
        let pieces: Vec<String> =
            at.windows(2).map(|pair| letters[pair[0]..pair[1]].iter().collect()).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        prop_assert_eq!(run(&pieces), run(&[&whole]));
    }
}

const PARTS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "{\"name\": \"f\", \"arguments\": {\"city\": \"é\"}}",
    "{\"name\": \"",
    "<function=f>",
    "<parameter=days>",
    "1",
    "</parameter>",
    "</function>",
    " \n",
    "ü<",
    "\"",
];
