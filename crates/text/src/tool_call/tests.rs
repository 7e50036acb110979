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
    vec![ToolSpec { parameters, ..ToolSpec::new("f") }]
}

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Words(String),
    /// Name, arguments, and whether they are whole.
    Call(String, String, bool),
}

/// Everything said, what belongs together joined.
fn run(pieces: &[&str]) -> Vec<Told> {
    let mut parser = ToolCallParser::new(tools());
    let pushed: Vec<Said> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    told(pushed.into_iter().chain(parser.finish()))
}

fn told(said: impl IntoIterator<Item = Said>) -> Vec<Told> {
    let mut all: Vec<Told> = Vec::new();
    for piece in said {
        match (all.last_mut(), piece) {
            (Some(Told::Words(before)), Said::Text(text)) => before.push_str(&text),
            (_, Said::Text(text)) => all.push(Told::Words(text)),
            (_, Said::Call(name)) => all.push(Told::Call(name, String::new(), false)),
            (Some(Told::Call(_, before, false)), Said::Arguments(delta)) => {
                before.push_str(&delta);
            }
            (Some(Told::Call(_, _, whole @ false)), Said::Called) => *whole = true,
            (last, piece) => panic!("{piece:?} behind {last:?}"),
        }
    }
    all
}

fn words(text: &str) -> Told {
    Told::Words(text.to_owned())
}

/// A call whose arguments are written like this.
fn written(name: &str, arguments: &str) -> Told {
    Told::Call(name.to_owned(), arguments.to_owned(), true)
}

fn call(name: &str, arguments: &serde_json::Value) -> Told {
    written(name, &arguments.to_string())
}

// Requirement 16
#[test]
fn calls_are_read_from_json() {
    let said =
        run(&["Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Z\"}}\n\
                      </tool_call>\n<tool_call>{\"name\": \"g\"}</tool_call>\n"]);
    let first = written("f", "{\"city\":\"Z\"}");
    assert_eq!(said, [words("Let me see."), first, call("g", &json!({}))]);
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
    assert_eq!(said, [written("f", "{\"city\":\"</tool_call>\"}")]);
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
        "a <tool_call><function=f> \n<param",
        "a <tool_call><function=f>junk</function></tool_call>",
        "a <tool_call><function=></function></tool_call>",
        "a < b <tool",
        "<tool_call></tool_call>",
    ] {
        assert_eq!(run(&[text]), [words(text)]);
    }
}

// Requirement 14
#[test]
fn a_call_that_is_cut_ends_where_it_is_cut() {
    let cut = |arguments: &str| Told::Call("f".to_owned(), arguments.to_owned(), false);
    for (text, arguments) in [
        ("<tool_call>{\"name\": \"f\", \"arguments\": {\"city\": \"Zü", "{\"city\":\"Zü"),
        ("<tool_call>{\"name\": \"f\", \"arguments\": {\"days\": \"1", "{\"days\":\"1"),
        ("<tool_call><function=f><parameter=city>\nZ\n</para", "{\"city\":\"Z"),
        ("<tool_call><function=f><parameter=days>\n1", "{\"days\":"),
        ("<tool_call><function=f><parameter=city>Z</parameter>\n", "{\"city\":\"Z"),
    ] {
        assert_eq!(run(&[text]), [cut(arguments)], "{text}");
    }
    let mut parser = ToolCallParser::new(tools());
    parser.push("<tool_call>{\"name\": \"f\", \"arguments\": {");
    parser.finish();
    assert!(!parser.called());
}

#[test]
fn forgotten_ends_are_forgiven() {
    let city = written("f", "{\"city\":\"Z\"}");
    for text in [
        "<tool_call><function=f><parameter=city>Z</parameter></tool_call> on",
        "<tool_call><function=f><parameter=city>Z</parameter></function> on",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"city\":\"Z\"}</tool_call> on",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"city\":\"Z\"}} on",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"city\":\"Z\"}, \"x\": 1}</tool_call> on",
    ] {
        assert_eq!(run(&[text]), [city.clone(), words(" on")], "{text}");
    }
}

// Requirement 16
#[test]
fn arguments_of_json_are_given_the_types_of_the_schema() {
    let said = run(&[concat!(
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"city\": 12, \"days\": \"3\" , ",
        "\"ratio\": 1, \"flag\": \"True\", \"list\": \"[1]\", ",
        "\"deep\": {\"city\": 1, \"days\": \"2\"}, ",
        "\"maybe\": \"x\", \"free\": \"7\"}}</tool_call>",
    )]);
    let arguments = concat!(
        "{\"city\":\"12\",\"days\":3,\"ratio\":1,\"flag\":true,\"list\":[1],",
        "\"deep\":{\"city\":1,\"days\":\"2\"},\"maybe\":\"x\",\"free\":\"7\"}",
    );
    assert_eq!(said, [written("f", arguments)]);
    let said = run(&["<tool_call>{\"arguments\": {\"days\": \"3\"}, \"name\": \"f\"}</tool_call>"]);
    assert_eq!(said, [written("f", "{\"days\":3}")]);
    let said =
        run(&["<tool_call>{\"name\": \"f\", \"arguments\": {\"days\": \"many\"}}</tool_call>"]);
    assert_eq!(said, [written("f", "{\"days\":\"many\"}")]);
}

#[test]
fn arguments_are_passed_on_as_they_come() {
    let mut parser = ToolCallParser::new(tools());
    assert_eq!(parser.push("<tool_call>{\"name\": \"f\", \"argu"), []);
    let begun = [Said::Call("f".to_owned()), Said::Arguments("{".to_owned())];
    assert_eq!(parser.push("ments\": {"), begun);
    let piece = |text: &str| vec![Said::Arguments(text.to_owned())];
    assert_eq!(parser.push("\"city\": \"Zür"), piece("\"city\":\"Zür"));
    assert_eq!(parser.push("ich</tool"), piece("ich</tool"));
    let end = vec![Said::Arguments("\"}".to_owned()), Said::Called];
    assert_eq!(parser.push("\"}"), end);
    assert_eq!(parser.push("}\n</tool_call>"), []);

    let mut parser = ToolCallParser::new(tools());
    let said = parser.push("<tool_call><function=f><parameter=city>\none");
    let begun = Told::Call("f".to_owned(), "{\"city\":\"one".to_owned(), false);
    assert_eq!(told(said), [begun]);
    assert_eq!(parser.push(" \"two\"\n"), piece(" \\\"two\\\""));
    assert_eq!(parser.push("</parameter"), []);
    assert_eq!(parser.push("> three"), piece("\\n</parameter> three"));
    assert_eq!(parser.push("</parameter>\n"), []);
    let end = ["\"", "}"].map(|piece| Said::Arguments(piece.to_owned()));
    let said = parser.push("</function>");
    assert_eq!((&said[..2], &said[2..]), (&end[..], &[Said::Called][..]));
}

#[test]
fn text_is_held_back_only_while_it_may_be_a_marker() {
    let mut parser = ToolCallParser::new(tools());
    assert_eq!(told(parser.push("a <tool")), [words("a")]);
    assert_eq!(told(parser.push("box> b")), [words(" <toolbox> b")]);
    assert!(!parser.called());
}

#[test]
fn without_tools_everything_is_text() {
    let mut parser = ToolCallParser::new(Vec::new());
    let text = "<tool_call>{\"name\": \"f\"}</tool_call>";
    assert_eq!(told(parser.push(text)), [words(text)]);
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
    "<parameter=city>",
    "{\"name\": \"f\", \"arguments\": {\"days\": \"",
    "{\"name\": \"f\", \"arguments\": {\"city\": ",
    "1",
    "}",
    "}}",
    "\\",
    "</parameter>",
    "</function>",
    " \n",
    "ü<",
    "\"",
];
