//! Calls of tools, in the form that the model was taught.

use dialog::{GenerateRequest, ToolChoice, ToolSpec};
use serde_json::{Value, json};

use super::schema::{FORMATS, Wrong, compilable};
use super::{Rules, enforces_calls, json_rule, literal, parsed};
use crate::prompt::told;
use crate::tool_call::{CLOSE, CallForm, OPEN};
use crate::{FormatPart, TextError, TextModel};

/// What the calls of a request are in its grammar.
pub(super) struct Calls {
    /// The answer: calls, or words and calls where the model decides.
    pub(super) rule: String,
    /// Calls alone, for an answer whose words have a form of their own.
    pub(super) in_place_of_an_answer: &'static str,
    /// Whether there must be a call.
    pub(super) is_required: bool,
}

/// The rules for calls, as far as the request wants any enforced.
pub(super) fn body(
    model: &TextModel,
    request: &GenerateRequest,
    rules: &mut Rules,
) -> Result<Option<Calls>, TextError> {
    let is_beside_a_format = request.format.is_some() && told(request).next().is_some();
    if !(enforces_calls(request) || is_beside_a_format) {
        return Ok(None);
    }
    let named = match &request.tool_choice {
        ToolChoice::Named(name) => Some(name),
        _ => None,
    };
    let tools = told(request).filter(|tool| named.is_none_or(|name| *name == tool.name));
    let mut choices = Vec::new();
    for (at, tool) in tools.enumerate() {
        let name = format!("tool{at}");
        call(model.call_form, tool, &name, rules).map_err(|wrong| TextError::Format {
            part: FormatPart::Tools,
            path: format!("{}{}", tool.name, wrong.path),
            reason: wrong.reason,
        })?;
        choices.push(name);
    }
    rules.add("tool", &choices.join(" | "));
    let (open, close) = (model.marker(OPEN), model.marker(CLOSE));
    rules.add("call", &format!(r#"{open} "\n" tool "\n" {close}"#));
    // A named call is one call.
    let several = request.parallel_tool_calls && named.is_none();
    rules.add("calls", if several { r#"call ("\n" call)*"# } else { "call" });
    let is_required = request.tool_choice != ToolChoice::Auto;
    let rule = match is_required {
        true => "calls".to_owned(),
        false => {
            let escaped = super::regex_escape(OPEN);
            rules.add("WORDS", &format!("/(?s:.*)/ & ~/(?s:.*){escaped}(?s:.*)/"));
            "WORDS calls?".to_owned()
        }
    };
    Ok(Some(Calls { rule, in_place_of_an_answer: "calls", is_required }))
}

/// Adds the rule `name`: a call of this tool.
fn call(form: CallForm, tool: &ToolSpec, name: &str, rules: &mut Rules) -> Result<(), Wrong> {
    let mut schema = match &tool.parameters {
        Some(parameters) => parsed(parameters),
        None => json!({"type": "object", "properties": {}, "additionalProperties": false}),
    };
    if !tool.strict {
        // Elsewhere an unknown format is a hint, and nobody has promised more.
        drop_unknown_formats(&mut schema);
    }
    match schema.as_object_mut() {
        Some(fields) => match fields.get("type").and_then(Value::as_str) {
            Some("object") => {}
            None if !fields.contains_key("type") => {
                fields.insert("type".to_owned(), json!("object"));
            }
            _ => return Err(wrong("/type", "arguments must be of the type object")),
        },
        None => return Err(wrong("", "parameters must be a JSON schema of objects")),
    }
    match form {
        CallForm::Json => {
            let tool = Value::from(tool.name.as_str());
            let begin = literal(&format!("{{\"name\": {tool}, \"arguments\": "));
            rules.add(name, &format!("{begin} {} \"}}\"", json_rule(&compilable(&schema)?)));
            Ok(())
        }
        CallForm::Xml => xml_call(tool, &schema, name, rules),
    }
}

fn wrong(path: &str, reason: &str) -> Wrong {
    Wrong { path: path.to_owned(), reason: reason.to_owned() }
}

fn drop_unknown_formats(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("format").and_then(Value::as_str).is_some_and(|it| !FORMATS.contains(&it))
            {
                fields.remove("format");
            }
            fields.values_mut().for_each(drop_unknown_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_unknown_formats),
        _ => {}
    }
}

/// Parameters in the order of the schema, those that are required without exception.
fn xml_call(tool: &ToolSpec, schema: &Value, name: &str, rules: &mut Rules) -> Result<(), Wrong> {
    // For what it says about the whole.
    compilable(schema)?;
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let none = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    if let Some(key) = required.iter().find(|key| !properties.contains_key(**key)) {
        return Err(wrong("/required", &format!("names {key}, which no property describes")));
    }
    let mut call = literal(&format!("<function={}>\n", tool.name));
    for (at, (key, property)) in properties.iter().enumerate() {
        let path = format!("/properties/{key}");
        if key.trim() != key || key.is_empty() || key.contains(['>', '\n']) {
            return Err(wrong(&path, "this name cannot be written in the calls of this model"));
        }
        let parameter = format!("{name}_p{at}");
        let begin = literal(&format!("<parameter={key}>\n"));
        match xml_value(tool, schema, property, &path)? {
            XmlValue::Words => {
                rules.add(&format!("{parameter}_words[lazy]"), WORDS_TO_THE_END);
                rules.add(&parameter, &format!("{begin} {parameter}_words"));
            }
            XmlValue::Rule(value) => {
                rules.add(&parameter, &format!(r#"{begin} ({value}) "\n</parameter>\n""#));
            }
        }
        let is_required = required.contains(&key.as_str());
        call.push_str(&format!(" {parameter}{}", if is_required { "" } else { "?" }));
    }
    rules.add(name, &format!("{call} \"</function>\""));
    Ok(())
}

/// The first end marker ends the value, for the grammar and for the reader.
const WORDS_TO_THE_END: &str = r"/(?s:.*)\n<\/parameter>\n/ & ~/(?s:.*)<\/parameter>(?s:..+)/";

/// How a parameter's value is written.
enum XmlValue {
    /// Bare words.
    Words,
    /// What this rule says.
    Rule(String),
}

/// Strings are written bare, everything else as JSON.
fn xml_value(
    tool: &ToolSpec,
    schema: &Value,
    property: &Value,
    path: &str,
) -> Result<XmlValue, Wrong> {
    let texts = |values: &[Value]| {
        let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
        texts.map(|texts| texts.into_iter().map(literal).collect::<Vec<_>>().join(" | "))
    };
    let fixed = match (property["enum"].as_array(), property.get("const")) {
        (Some(values), _) => texts(values),
        (None, Some(value)) => texts(std::slice::from_ref(value)),
        (None, None) => None,
    };
    if let Some(fixed) = fixed.filter(|fixed| !fixed.is_empty()) {
        return Ok(XmlValue::Rule(fixed));
    }
    if crate::tool_call::takes_text(schema, property) {
        const LIMITS: [&str; 4] = ["pattern", "format", "minLength", "maxLength"];
        let limit = LIMITS.into_iter().find(|key| property.get(key).is_some());
        return match limit.filter(|_| tool.strict) {
            Some(key) => {
                let reason = format!("the keyword {key} cannot be enforced in this model's calls");
                Err(wrong(path, &reason))
            }
            None => Ok(XmlValue::Words),
        };
    }
    // References reach from the root of their document, which this value becomes.
    let mut value = property.clone();
    if let Some(fields) = value.as_object_mut() {
        for key in ["$defs", "definitions"] {
            if let Some(definitions) = schema.get(key) {
                fields.insert(key.to_owned(), definitions.clone());
            }
        }
    }
    let value = compilable(&value)
        .map_err(|inner| Wrong { path: format!("{path}{}", inner.path), reason: inner.reason })?;
    Ok(XmlValue::Rule(json_rule(&value)))
}
