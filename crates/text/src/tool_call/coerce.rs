//! What a tool's JSON schema says that an argument was meant to be (requirement 16).

use dialog::ToolSpec;
use serde_json::Value;

/// The schema of a tool's arguments; `None` where nothing is known of them.
#[derive(Clone, Debug, Default)]
pub(super) struct SchemaOfArguments {
    schema: Option<Value>,
}

impl SchemaOfArguments {
    pub(super) fn of(name: &str, tools: &[ToolSpec]) -> Self {
        let tool = tools.iter().find(|tool| tool.name == name);
        let parameters = tool.and_then(|tool| tool.parameters.as_ref());
        Self { schema: parameters.and_then(|it| serde_json::from_str(&it.0).ok()) }
    }

    /// The types that an argument may have; none where the schema leaves it open.
    pub(super) fn of_argument(&self, key: &str) -> Vec<&str> {
        let property = |root| Value::get(root, "properties")?.get(key);
        let known = self.schema.as_ref().and_then(|root| Some((root, property(root)?)));
        known.map_or_else(Vec::new, |(root, schema)| types(root, schema))
    }
}

/// The value in the first of its types that it can be read as, else a string.
pub(super) fn from_text(text: &str, types: &[&str]) -> Value {
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

/// JSON text of a string, a number or a word, as an argument of these types would be written: a
/// string that holds a number becomes that number where only that is allowed, and the other way
/// round. What fits, or cannot be made to fit, stays as it is.
pub(super) fn from_json(json: &str, types: &[&str]) -> String {
    let as_it_is = || json.to_owned();
    match serde_json::from_str::<Value>(json) {
        Ok(Value::String(text)) if !is_text(types) => match from_text(&text, types) {
            Value::String(_) => as_it_is(),
            value => value.to_string(),
        },
        Ok(Value::Number(_) | Value::Bool(_)) if types == ["string"] => {
            Value::from(json).to_string()
        }
        _ => as_it_is(),
    }
}

/// Whether text is what is wanted; it is where nothing is said.
pub(super) fn is_text(types: &[&str]) -> bool {
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
