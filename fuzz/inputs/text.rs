//! Bytes as what a model says and as what a model file has for a template. The fuzz targets and
//! the loops of `crates/text/tests/hostile.rs` share these functions: none of them panics.

use dialog::{Message, Role, ToolSpec};
use text::{RenderOptions, Said, SpecialTokens, Template, ToolCallParser};

/// Compiles a template and renders a conversation with it.
pub fn template(bytes: &[u8]) {
    let Ok(source) = str::from_utf8(bytes) else { return };
    let Ok(template) = Template::new(source, SpecialTokens::default()) else { return };
    let turns = [
        (Role::System, "Be brief."),
        (Role::User, "ünïcode {{ x }} \u{1F600}"),
        (Role::Assistant, ""),
        (Role::User, "<|im_end|>"),
    ];
    let messages = turns.map(|(role, text)| Message::text(role, text));
    for tools in [Vec::new(), tools()] {
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let _ = template.render(&messages, &tools, &options);
    }
}

/// Finds tool calls in a text, at once and letter by letter: it must say the same.
pub fn tool_calls(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut letter = [0; 4];
    let letters = text.chars().map(|c| c.encode_utf8(&mut letter).to_owned());
    let letters: Vec<String> = letters.collect();
    assert_eq!(said([&*text]), said(letters.iter().map(String::as_str)));
}

/// What a parser makes of the pieces, texts and arguments joined.
fn said<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<Said> {
    let mut parser = ToolCallParser::new(tools());
    let mut all: Vec<Said> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    all.extend(parser.finish());
    let mut joined = Vec::new();
    for piece in all {
        match (joined.last_mut(), piece) {
            (Some(Said::Text(before)), Said::Text(more))
            | (Some(Said::Arguments(before)), Said::Arguments(more)) => before.push_str(&more),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

fn tools() -> Vec<ToolSpec> {
    let parameters = r#"{"type": "object", "properties": {"n": {"type": "integer"},
        "city": {"type": "string"}, "list": {"type": "array"}}}"#;
    vec![ToolSpec {
        description: Some("Does it.".into()),
        parameters: Some(dialog::Json(parameters.to_owned())),
        ..ToolSpec::new("f")
    }]
}
