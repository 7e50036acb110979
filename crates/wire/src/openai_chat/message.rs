//! `messages` -> conversation.

use dialog::{Message, Part, Role, ToolCall};
use serde_json::value::RawValue;

use crate::WireError;
use crate::fields::{self, Object};
use crate::tools::arguments;

/// Reads all messages, each error under its own path such as `messages[2].role`.
pub(super) fn conversation(body: &Object<'_>) -> Result<Vec<Message>, WireError> {
    let raws = body.array("messages")?.ok_or_else(|| body.missing("messages"))?;
    if raws.is_empty() {
        return Err(body.wrong("messages", "must hold at least one message"));
    }
    let read = |(index, raw): (usize, &&RawValue)| {
        message(&Object::from_value(raw, format!("messages[{index}]"))?)
    };
    raws.iter().enumerate().map(read).collect()
}

fn message(fields: &Object<'_>) -> Result<Message, WireError> {
    let role = role(fields)?;
    if fields.raw("function_call").is_some() {
        return Err(fields.unsupported("function_call", "use tool_calls"));
    }
    let tool_calls = match role {
        Role::Assistant => tool_calls(fields)?,
        _ => Vec::new(),
    };
    let reasoning = match role {
        Role::Assistant => fields.text("reasoning_content")?,
        _ => None,
    };
    // Requirement 1: only an assistant turn that says something in another way may leave it out.
    let may_be_silent = !tool_calls.is_empty() || reasoning.is_some();
    let content = content(fields, may_be_silent)?;
    let tool_call_id = match role {
        Role::Tool => {
            let id = fields.text("tool_call_id")?;
            Some(id.ok_or_else(|| fields.missing("tool_call_id"))?)
        }
        _ => None,
    };
    Ok(Message { role, content, reasoning, tool_calls, tool_call_id, is_error: false })
}

fn role(fields: &Object<'_>) -> Result<Role, WireError> {
    match fields.text("role")?.as_deref() {
        None => Err(fields.missing("role")),
        Some("system" | "developer") => Ok(Role::System),
        Some("user") => Ok(Role::User),
        Some("assistant") => Ok(Role::Assistant),
        Some("tool") => Ok(Role::Tool),
        Some(_) => {
            Err(fields.wrong("role", "must be one of system, developer, user, assistant, tool"))
        }
    }
}

fn content(fields: &Object<'_>, may_be_silent: bool) -> Result<Vec<Part>, WireError> {
    let Some(raw) = fields.raw("content") else {
        return if may_be_silent { Ok(Vec::new()) } else { Err(fields.missing("content")) };
    };
    match raw.get().as_bytes().first() {
        Some(b'"') => Ok(vec![Part::Text(fields::text(raw, || fields.at("content"))?)]),
        Some(b'[') => {
            let raws = fields.array("content")?.unwrap_or_default();
            if raws.is_empty() && !may_be_silent {
                return Err(fields.wrong("content", "must hold at least one part"));
            }
            let path = fields.at("content");
            let read = |(index, raw): (usize, &&RawValue)| {
                part(&Object::from_value(raw, format!("{path}[{index}]"))?)
            };
            raws.iter().enumerate().map(read).collect()
        }
        _ => Err(fields.wrong("content", "must be a string or an array of parts")),
    }
}

fn part(fields: &Object<'_>) -> Result<Part, WireError> {
    match fields.text("type")?.as_deref() {
        None => Err(fields.missing("type")),
        Some(name @ ("text" | "refusal")) => {
            let text = fields.text(name)?.ok_or_else(|| fields.missing(name))?;
            Ok(Part::Text(text))
        }
        Some("image_url") => image(fields),
        Some(_) => Err(fields.wrong("type", "must be text or image_url")),
    }
}

fn image(fields: &Object<'_>) -> Result<Part, WireError> {
    let path = fields.path().to_owned();
    let Some(raw) = fields.raw("image_url") else { return Err(fields.missing("image_url")) };
    if raw.get().starts_with('"') {
        let url = fields::text(raw, || fields.at("image_url"))?;
        return Ok(Part::Image { url, path });
    }
    let image = Object::from_value(raw, fields.at("image_url"))?;
    let url = image.text("url")?.ok_or_else(|| image.missing("url"))?;
    Ok(Part::Image { url, path })
}

fn tool_calls(fields: &Object<'_>) -> Result<Vec<ToolCall>, WireError> {
    let raws = fields.array("tool_calls")?.unwrap_or_default();
    let path = fields.at("tool_calls");
    let read = |(index, raw): (usize, &&RawValue)| {
        tool_call(&Object::from_value(raw, format!("{path}[{index}]"))?)
    };
    raws.iter().enumerate().map(read).collect()
}

fn tool_call(fields: &Object<'_>) -> Result<ToolCall, WireError> {
    match fields.text("type")?.as_deref() {
        None | Some("function") => {}
        Some(_) => return Err(fields.wrong("type", "must be function")),
    }
    let id = fields.text("id")?.ok_or_else(|| fields.missing("id"))?;
    let function = fields.object("function")?.ok_or_else(|| fields.missing("function"))?;
    let name = function.text("name")?.ok_or_else(|| function.missing("name"))?;
    Ok(ToolCall { id, name, arguments: arguments(&function)? })
}
