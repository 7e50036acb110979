//! What models say, split at every byte: the same thoughts, words and calls, and no marker in them.

use std::sync::Arc;

use dialog::{Defaults, Event, FinishReason, Json, ToolSpec};
use serde_json::{Value, json};
use text::{StreamOptions, TextModel, TextStream, Tokenizer};

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the fixture is in the repository")
}

fn model() -> Arc<TextModel> {
    let tokenizer = Tokenizer::from_json(fixture("tokenizer.json").as_bytes()).expect("it reads");
    Arc::new(TextModel::new(tokenizer, None, Vec::new(), Defaults::default()))
}

/// The token of each byte, since an engine may end a token anywhere.
fn byte_tokens(model: &TextModel, text: &str) -> Vec<u32> {
    let of = |byte: u8| {
        let mut ids = 0..model.tokenizer.vocab_size();
        ids.find(|id| model.tokenizer.token_bytes(*id) == [byte]).expect("every byte is a token")
    };
    let table: Vec<u32> = (0..=255).map(of).collect();
    text.bytes().map(|byte| table[usize::from(byte)]).collect()
}

fn tools() -> Vec<ToolSpec> {
    let schema = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "ratio": {"type": "number"},
        "flag": {"type": "boolean"}, "list": {"type": "array"},
        "maybe": {"type": ["string", "null"]},
        "path": {"type": "string"}, "content": {"type": "string"},
    }});
    let parameters = Some(Json(schema.to_string()));
    ["get_weather", "write_file", "now"]
        .map(|name| ToolSpec { parameters: parameters.clone(), ..ToolSpec::new(name) })
        .into()
}

/// Those that a recording was asked with.
fn tools_of(case: &Value) -> Option<Vec<ToolSpec>> {
    let one = |tool: &Value| ToolSpec {
        parameters: tool.get("parameters").map(|schema| Json(schema.to_string())),
        ..ToolSpec::new(tool["name"].as_str().expect("a name"))
    };
    Some(case["tools"].as_array()?.iter().map(one).collect())
}

/// Thoughts, words, calls and the end of an answer whose tokens come in these pieces.
fn told(model: &Arc<TextModel>, case: &Value, pieces: &[&[u32]]) -> Value {
    let options = StreamOptions {
        tools: tools_of(case).unwrap_or_else(tools),
        reasoning_open: case["open"] == true,
        ..StreamOptions::default()
    };
    let mut stream = TextStream::new(Arc::clone(model), options);
    let mut events: Vec<Event> = pieces.iter().flat_map(|piece| stream.push(piece)).collect();
    let asked = if case["cut"] == true { FinishReason::Length } else { FinishReason::Stop };
    let (rest, reason, _) = stream.finish(asked);
    events.extend(rest);
    let (mut reasoning, mut content) = (String::new(), String::new());
    let mut calls: Vec<(String, String)> = Vec::new();
    for event in events {
        match event {
            Event::Reasoning(text) => reasoning.push_str(&text),
            Event::Text(text) => content.push_str(&text),
            Event::ToolCall { name, .. } => calls.push((name, String::new())),
            Event::ToolArguments { delta, .. } => {
                calls.last_mut().expect("a call has begun").1.push_str(&delta);
            }
            other => panic!("{other:?}"),
        }
    }
    let reason = format!("{reason:?}");
    json!({"reasoning": reasoning, "content": content, "calls": calls, "reason": reason})
}

const MARKERS: [&str; 9] = [
    "think>",
    "tool_call>",
    "<function",
    "</function",
    "<parameter",
    "</parameter",
    "<tool",
    "<thi",
    "</",
];

/// Holds every split at one place, and pieces of every size up to seven bytes, against the whole.
fn hold_every_split(model: &Arc<TextModel>, case: &Value) -> Value {
    let text = case["text"].as_str().expect("a text");
    let tokens = byte_tokens(model, text);
    let whole = told(model, case, &[&tokens]);
    for at in 1..tokens.len() {
        let (one, other) = tokens.split_at(at);
        assert_eq!(told(model, case, &[one, other]), whole, "{at} of {text}");
    }
    for size in 1..=7 {
        let pieces: Vec<&[u32]> = tokens.chunks(size).collect();
        assert_eq!(told(model, case, &pieces), whole, "{size} at once of {text}");
    }
    whole
}

fn leak(told: &Value) -> Option<&'static str> {
    let shown = told.to_string();
    MARKERS.into_iter().find(|marker| shown.contains(*marker))
}

// Requirements 14 to 16, 21 and 22; equality E8
#[test]
fn every_split_of_what_models_say_tells_the_same() {
    let model = model();
    let cases: Vec<Value> = serde_json::from_str(&fixture("outputs.json")).expect("JSON");
    assert!(cases.len() >= 40);
    for case in &cases {
        let told = hold_every_split(&model, case);
        assert_eq!(told, case["told"], "{}", case["text"]);
        let leak = leak(&told);
        assert!(case["quotes"] == true || leak.is_none(), "{leak:?} in {told}");
    }
}

/// Recorded from a trained model (`fixtures/record.py`), and read there by other means.
#[test]
fn every_split_of_what_a_model_has_said_tells_the_same() {
    let model = model();
    let cases: Vec<Value> = serde_json::from_str(&fixture("recorded.json")).expect("JSON");
    let (mut well_formed, mut with_calls, mut thoughtful) = (0, 0, 0);
    for case in &cases {
        let told = hold_every_split(&model, case);
        if case["told"].is_null() {
            continue;
        }
        assert_eq!(told, case["told"], "{}", case["text"]);
        assert_eq!(leak(&told), None, "{told}");
        well_formed += 1;
        with_calls += usize::from(told["calls"] != json!([]));
        thoughtful += usize::from(told["reasoning"] != "");
    }
    assert!(well_formed >= 40, "{well_formed}");
    assert!(with_calls >= 10 && thoughtful >= 10, "{with_calls} {thoughtful}");
    assert!(cases.len() > well_formed, "none has lost its way");
}
