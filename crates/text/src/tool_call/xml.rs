//! `<function=NAME><parameter=KEY>VALUE</parameter></function>`, as Qwen's coder models write it.
//!
//! The values carry no types; the tool's JSON schema says what each was meant to be.

use dialog::ToolSpec;
use serde_json::{Map, Value};

use super::{NoCall, ParsedCall};

pub(super) const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";

pub(super) fn parse(block: &str, tools: &[ToolSpec]) -> Result<ParsedCall, NoCall> {
    let rest = block.strip_prefix(FUNCTION).ok_or(NoCall::Broken)?;
    let (name, mut rest) = rest.split_once('>').ok_or(NoCall::Broken)?;
    let name = name.trim();
    if name.is_empty() {
        return Err(NoCall::Broken);
    }
    let schema = schema(name, tools);
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(FUNCTION_END) {
            return match after.trim().is_empty() {
                true => Ok(ParsedCall {
                    name: name.to_owned(),
                    arguments: Value::Object(arguments).to_string(),
                }),
                false => Err(NoCall::Broken),
            };
        }
        let parameter = rest.strip_prefix(PARAMETER).ok_or(NoCall::Broken)?;
        let (key, body) = parameter.split_once('>').ok_or(NoCall::Broken)?;
        let (value, after) = value_and_rest(body).ok_or(NoCall::GoesOn)?;
        let types = schema
            .as_ref()
            .and_then(|schema| Some(types(schema, schema.get("properties")?.get(key.trim())?)));
        arguments.insert(key.trim().to_owned(), coerce(value, &types.unwrap_or_default()));
        rest = after;
    }
}

/// A value ends at the first end marker behind which the block goes on as a block does; a value
/// that itself holds the marker stays whole.
fn value_and_rest(body: &str) -> Option<(&str, &str)> {
    let mut ends = body.match_indices(PARAMETER_END);
    let (end, rest) = ends.find_map(|(at, marker)| {
        let rest = &body[at + marker.len()..];
        let next = rest.trim_start();
        (next.starts_with(PARAMETER) || next.starts_with(FUNCTION_END)).then_some((at, rest))
    })?;
    let value = &body[..end];
    let value = value.strip_prefix('\n').unwrap_or(value);
    Some((value.strip_suffix('\n').unwrap_or(value), rest))
}

fn schema(name: &str, tools: &[ToolSpec]) -> Option<Value> {
    let tool = tools.iter().find(|tool| tool.name == name)?;
    serde_json::from_str(&tool.parameters.as_ref()?.0).ok()
}

/// The value in the first of its types that it can be read as, else a string.
fn coerce(text: &str, types: &[&str]) -> Value {
    let word = text.trim();
    let takes_text = is_text(types);
    let read = types.iter().filter(|name| !takes_text || **name == "null").find_map(|name| {
        let json = || serde_json::from_str::<Value>(word).ok();
        match *name {
            "null" => matches!(word, "null" | "None").then_some(Value::Null),
            "boolean" => match word {
                "true" | "True" => Some(Value::Bool(true)),
                "false" | "False" => Some(Value::Bool(false)),
                _ => None,
            },
            "integer" => json().filter(|value| value.is_i64() || value.is_u64()),
            "number" => json().filter(Value::is_number),
            "array" => json().filter(Value::is_array),
            "object" => json().filter(Value::is_object),
            _ => None,
        }
    });
    read.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn is_text(types: &[&str]) -> bool {
    types.contains(&"string") || types.is_empty()
}

/// Whether a value of this schema is read as the text that it is; `root` is what references in it
/// reach from.
pub(crate) fn takes_text(root: &Value, schema: &Value) -> bool {
    is_text(&types(root, schema))
}

fn types<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a str> {
    let mut types = Vec::new();
    collect_types(root, schema, &mut types, 0);
    types
}

fn collect_types<'a>(root: &'a Value, schema: &'a Value, types: &mut Vec<&'a str>, depth: usize) {
    const DEEPEST: usize = 8;
    if depth > DEEPEST {
        return;
    }
    match schema.get("type") {
        Some(Value::String(name)) => return types.push(name),
        Some(Value::Array(names)) => return types.extend(names.iter().filter_map(Value::as_str)),
        _ => {}
    }
    let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    types.extend(values.chain(schema.get("const")).map(type_of));
    let choices = ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema.get(key)?.as_array());
    let referred = schema.get("$ref").and_then(Value::as_str);
    let referred = referred.and_then(|it| root.pointer(it.strip_prefix('#')?));
    for choice in choices.flatten().chain(referred) {
        collect_types(root, choice, types, depth + 1);
    }
}

fn type_of(value: &Value) -> &str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
