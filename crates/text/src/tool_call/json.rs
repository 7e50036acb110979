//! `{"name": "...", "arguments": {...}}`.

use serde_json::Value;

/// What the beginning of a block says about the call in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It takes more text to say.
    Open,
    /// The name is known, and the arguments begin behind so many bytes.
    Call { name: String, length: usize },
    /// It is no call, or one whose parts stand in another order: only the whole block tells.
    Other,
}

/// Looks at the beginning of a block that starts with a brace.
pub(super) fn begin(block: &str) -> Beginning {
    let mut rest = block;
    match name(&mut rest) {
        Ok(name) => Beginning::Call { name, length: block.len() - rest.len() },
        Err(other) => other,
    }
}

/// Reads up to the brace that begins the arguments.
fn name(rest: &mut &str) -> Result<String, Beginning> {
    letter(rest, '{')?;
    word(rest, &["name"])?;
    letter(rest, ':')?;
    let name = string(rest)?;
    letter(rest, ',')?;
    word(rest, &["arguments", "parameters"])?;
    letter(rest, ':')?;
    blank(rest)?;
    if name.is_empty() || !rest.starts_with('{') { Err(Beginning::Other) } else { Ok(name) }
}

/// Skips white space; something must be behind it.
fn blank(rest: &mut &str) -> Result<(), Beginning> {
    *rest = rest.trim_start();
    if rest.is_empty() { Err(Beginning::Open) } else { Ok(()) }
}

fn letter(rest: &mut &str, wanted: char) -> Result<(), Beginning> {
    blank(rest)?;
    *rest = rest.strip_prefix(wanted).ok_or(Beginning::Other)?;
    Ok(())
}

fn word(rest: &mut &str, wanted: &[&str]) -> Result<(), Beginning> {
    let text = string(rest)?;
    if wanted.contains(&text.as_str()) { Ok(()) } else { Err(Beginning::Other) }
}

fn string(rest: &mut &str) -> Result<String, Beginning> {
    blank(rest)?;
    if !rest.starts_with('"') {
        return Err(Beginning::Other);
    }
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find_map(|(at, letter)| match letter {
        _ if std::mem::take(&mut escaped) => None,
        '\\' => {
            escaped = true;
            None
        }
        '"' => Some(at + 1),
        _ => None,
    });
    let (text, after) = rest.split_at(end.ok_or(Beginning::Open)?);
    *rest = after;
    serde_json::from_str(text).map_err(|_| Beginning::Other)
}

/// Why a block between the markers is no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCall {
    /// The closing marker stands inside a value, so that the block goes on.
    GoesOn,
    /// The block makes no sense.
    Broken,
}

/// Name and arguments of a whole block.
pub(super) fn parse(block: &str) -> Result<(String, String), NoCall> {
    let Ok(value) = serde_json::from_str::<Value>(block) else {
        return Err(if block.starts_with('{') && ends_inside_string(block) {
            NoCall::GoesOn
        } else {
            NoCall::Broken
        });
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
    Ok((name.to_owned(), arguments))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_told_as_soon_as_it_can_be() {
        let whole = "{ \"name\" : \"f\\\"\" , \"arguments\": {";
        for (at, _) in whole.char_indices().skip(1) {
            assert_eq!(begin(&whole[..at]), Beginning::Open, "{}", &whole[..at]);
        }
        let call = Beginning::Call { name: "f\"".to_owned(), length: whole.len() - 1 };
        assert_eq!(begin(whole), call);
        for other in [
            "{\"arguments\"",
            "{\"name\": 1",
            "{\"name\": \"\", \"arguments\": {",
            "{\"name\": \"f\"}",
            "{[",
            "{\"name\": \"f\", \"arguments\": \"",
            "{\"name\": \"f\", \"id\"",
            "{'name",
        ] {
            assert_eq!(begin(other), Beginning::Other, "{other}");
        }
    }
}
