//! The form that an answer must have, as each dialect says it.

use dialog::{AnswerFormat, Json};
use serde_json::value::RawValue;

use crate::WireError;
use crate::fields::{self, Object};
use crate::tools::checked_schema;

/// Alternatives of a choice.
const MOST_CHOICES: usize = 1000;

/// Reads `response_format`, `text.format` or whatever its dialect calls it; `None` is free text.
///
/// The schema lies beside the type, or one level below as chat completions have it.
pub(crate) fn answer_format(
    parent: &Object<'_>,
    name: &str,
) -> Result<Option<AnswerFormat>, WireError> {
    let Some(format) = parent.object(name)? else { return Ok(None) };
    match format.text("type")?.as_deref() {
        None => Err(format.missing("type")),
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(AnswerFormat::JsonObject)),
        Some("json_schema") => {
            let nested = format.object("json_schema")?;
            let holder = nested.as_ref().unwrap_or(&format);
            // What is asked for is enforced, with or without this word.
            holder.flag("strict")?;
            holder.object("schema")?.ok_or_else(|| holder.missing("schema"))?;
            Ok(Some(AnswerFormat::JsonSchema(checked_schema(holder, "schema")?)))
        }
        Some("regex") if takes_regex(name) => Ok(Some(regex(&format, "pattern")?)),
        Some(_) if takes_regex(name) => {
            Err(format.wrong("type", "must be text, json_object, json_schema or regex"))
        }
        Some(_) => Err(format.wrong("type", "must be text, json_object or json_schema")),
    }
}

/// The dialects whose field this is are spoken by servers that know more formats than their vendor.
fn takes_regex(field: &str) -> bool {
    field == "response_format"
}

/// Reads `response_format`, and the names that other servers have for the form of an answer: vLLM's
/// `structured_outputs` and the older `guided_json`, `guided_regex` and `guided_choice`,
/// llama-server's `json_schema`. The second item is the field that asked, if it was one of these.
pub(crate) fn any_format(
    body: &Object<'_>,
) -> Result<(Option<AnswerFormat>, Option<&'static str>), WireError> {
    let mut found = (answer_format(body, "response_format")?, None);
    for field in
        ["structured_outputs", "guided_json", "guided_regex", "guided_choice", "json_schema"]
    {
        if body.raw(field).is_none() {
            continue;
        }
        let format = match field {
            "structured_outputs" => structured_outputs(body)?,
            "guided_regex" => Some(regex(body, field)?),
            "guided_choice" => Some(one_of(body, field)?),
            _ => Some(schema(body, field)?),
        };
        if format.is_some() && found.0.is_some() {
            let other = found.1.unwrap_or("response_format");
            return Err(body.wrong(field, format!("must not stand beside {other}")));
        }
        if format.is_some() {
            found = (format, Some(field));
        }
    }
    Ok(found)
}

/// `{"regex": …}`, `{"choice": […]}`, `{"json": …}` or `{"json_object": true}`.
fn structured_outputs(body: &Object<'_>) -> Result<Option<AnswerFormat>, WireError> {
    const FORMS: [&str; 4] = ["json", "regex", "choice", "json_object"];
    let Some(wanted) = body.object("structured_outputs")? else { return Ok(None) };
    for (name, value) in wanted.entries() {
        if !FORMS.contains(&name) && !matches!(value.get(), "null" | "false") {
            let advice = format!("of structured_outputs, {} are served", FORMS.join(", "));
            return Err(wanted.unsupported(name, advice));
        }
    }
    let asked: Vec<&str> = FORMS.into_iter().filter(|name| asks(wanted.raw(name))).collect();
    let form = match asked.as_slice() {
        [] => return Ok(None),
        [form] => *form,
        [first, second, ..] => {
            return Err(wanted.wrong(second, format!("must not stand beside {first}")));
        }
    };
    match form {
        "json" => schema(&wanted, form).map(Some),
        "regex" => regex(&wanted, form).map(Some),
        "choice" => one_of(&wanted, form).map(Some),
        _ => Ok(wanted.flag(form)?.map(|_| AnswerFormat::JsonObject)),
    }
}

fn asks(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| value.get() != "false")
}

fn regex(holder: &Object<'_>, name: &str) -> Result<AnswerFormat, WireError> {
    let pattern = holder.text(name)?.ok_or_else(|| holder.missing(name))?;
    if pattern.is_empty() {
        return Err(holder.wrong(name, "must be a regular expression that is not empty"));
    }
    Ok(AnswerFormat::Regex(pattern))
}

fn one_of(holder: &Object<'_>, name: &str) -> Result<AnswerFormat, WireError> {
    let items = holder.array(name)?.unwrap_or_default();
    let path = |at: usize| format!("{}[{at}]", holder.at(name));
    let texts = items.iter().enumerate().map(|(at, item)| fields::text(item, || path(at)));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() || texts.len() > MOST_CHOICES || texts.iter().any(String::is_empty) {
        let expected = format!("must be 1 to {MOST_CHOICES} texts, none of them empty");
        return Err(holder.wrong(name, expected));
    }
    Ok(AnswerFormat::OneOf(texts))
}

/// A JSON schema, or a text that holds one.
fn schema(holder: &Object<'_>, name: &str) -> Result<AnswerFormat, WireError> {
    const EXPECTED: &str = "must be a JSON schema: an object, or a text that holds one";
    if holder.raw(name).is_some_and(|raw| raw.get().starts_with('"')) {
        let text = holder.text(name)?.unwrap_or_default();
        return match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(serde_json::Value::Object(_)) => Ok(AnswerFormat::JsonSchema(Json(text))),
            _ => Err(holder.wrong(name, EXPECTED)),
        };
    }
    holder.object(name).map_err(|_| holder.wrong(name, EXPECTED))?;
    Ok(AnswerFormat::JsonSchema(checked_schema(holder, name)?))
}

#[cfg(test)]
mod tests;
