//! `{"name": "...", "arguments": {...}}`.

use serde_json::Value;

use super::{NoCall, ParsedCall};

pub(super) fn parse(block: &str) -> Result<ParsedCall, NoCall> {
    let Ok(value) = serde_json::from_str::<Value>(block) else {
        return Err(if ends_inside_string(block) { NoCall::GoesOn } else { NoCall::Broken });
    };
    let name = value.get("name").and_then(Value::as_str).ok_or(NoCall::Broken)?;
    let arguments = match value.get("arguments").or_else(|| value.get("parameters")) {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(object @ Value::Object(_)) => object.to_string(),
        // Some models write the object as a string, as the wire does.
        Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
            Ok(object @ Value::Object(_)) => object.to_string(),
            _ => return Err(NoCall::Broken),
        },
        Some(_) => return Err(NoCall::Broken),
    };
    if name.is_empty() {
        return Err(NoCall::Broken);
    }
    Ok(ParsedCall { name: name.to_owned(), arguments })
}

fn ends_inside_string(json: &str) -> bool {
    let (mut inside, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ => {}
        }
    }
    inside
}
