//! `instructions` and `input` -> conversation.

use dialog::{Message, Part, Role, ToolCall};

use crate::WireError;
use crate::fields::{self, Object};
use crate::tools::arguments;

/// Reads the conversation, each error under its own path such as `input[2].content`.
pub(super) fn conversation(body: &Object<'_>) -> Result<Vec<Message>, WireError> {
    let mut turns = Vec::new();
    if let Some(instructions) = body.text("instructions")? {
        turns.push(Message::text(Role::System, instructions));
    }
    let raw = body.raw("input").ok_or_else(|| body.missing("input"))?;
    match raw.get().as_bytes().first() {
        Some(b'"') => {
            let text = body.text("input")?.unwrap_or_default();
            turns.push(Message::text(Role::User, text));
        }
        Some(b'[') => {
            for (index, raw) in body.array("input")?.unwrap_or_default().into_iter().enumerate() {
                item(&Object::from_value(raw, format!("input[{index}]"))?, &mut turns)?;
            }
        }
        _ => return Err(body.wrong("input", "must be a string or an array of items")),
    }
    if turns.iter().all(|turn| turn.role == Role::System) {
        turns.push(Message::text(Role::User, ""));
    }
    Ok(turns)
}

/// Requirement 11: messages come with or without a `type`, and what is unknown is left out.
fn item(item: &Object<'_>, turns: &mut Vec<Message>) -> Result<(), WireError> {
    match item.text("type")?.as_deref() {
        Some("message") => message(item, turns),
        None if item.raw("role").is_some() => message(item, turns),
        Some("function_call") => {
            let id = item.text("call_id")?.ok_or_else(|| item.missing("call_id"))?;
            let name = item.text("name")?.ok_or_else(|| item.missing("name"))?;
            let call = ToolCall { id, name, arguments: arguments(item)? };
            assistant(turns).tool_calls.push(call);
            Ok(())
        }
        Some("function_call_output") => {
            let id = item.text("call_id")?.ok_or_else(|| item.missing("call_id"))?;
            let content = parts(item, "output")?;
            turns.push(Message { tool_call_id: Some(id), ..turn(Role::Tool, content) });
            Ok(())
        }
        Some("reasoning") => reasoning(item, turns),
        None => Err(item.missing("role")),
        Some(_) => Ok(()),
    }
}

fn message(item: &Object<'_>, turns: &mut Vec<Message>) -> Result<(), WireError> {
    let role = match item.text("role")?.as_deref() {
        None => return Err(item.missing("role")),
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system" | "developer") => Role::System,
        Some(_) => {
            let expected = "must be one of user, assistant, system, developer";
            return Err(item.wrong("role", expected));
        }
    };
    let content = parts(item, "content")?;
    match turns.last_mut() {
        // What the model said after it had thought belongs to the same turn.
        Some(last) if role == Role::Assistant && is_thought(last) => last.content = content,
        _ => turns.push(turn(role, content)),
    }
    Ok(())
}

/// The thoughts of a turn, if they come as text; encrypted ones are another server's.
fn reasoning(item: &Object<'_>, turns: &mut Vec<Message>) -> Result<(), WireError> {
    let mut thoughts = String::new();
    let items = item.array("content")?.unwrap_or_default();
    for (index, raw) in items.into_iter().enumerate() {
        let part = Object::from_value(raw, format!("{}[{index}]", item.at("content")))?;
        thoughts.push_str(&part.text("text")?.unwrap_or_default());
    }
    if !thoughts.is_empty() {
        let mut thought = turn(Role::Assistant, Vec::new());
        thought.reasoning = Some(thoughts);
        turns.push(thought);
    }
    Ok(())
}

fn is_thought(turn: &Message) -> bool {
    turn.reasoning.is_some() && turn.content.is_empty() && turn.tool_calls.is_empty()
}

/// The turn that calls belong to: the assistant's last one, as items list what one turn holds.
fn assistant(turns: &mut Vec<Message>) -> &mut Message {
    if turns.last().is_none_or(|turn| turn.role != Role::Assistant) {
        turns.push(turn(Role::Assistant, Vec::new()));
    }
    turns.last_mut().expect("a turn was pushed if there was none")
}

/// A string or an array of parts.
fn parts(item: &Object<'_>, name: &str) -> Result<Vec<Part>, WireError> {
    let raw = item.raw(name).ok_or_else(|| item.missing(name))?;
    match raw.get().as_bytes().first() {
        Some(b'"') => Ok(vec![Part::Text(fields::text(raw, || item.at(name))?)]),
        Some(b'[') => {
            let mut read = Vec::new();
            for (index, raw) in item.array(name)?.unwrap_or_default().into_iter().enumerate() {
                let path = format!("{}[{index}]", item.at(name));
                read.extend(part(&Object::from_value(raw, path)?)?);
            }
            Ok(read)
        }
        _ => Err(item.wrong(name, "must be a string or an array of parts")),
    }
}

/// `None` for a part that nobody here knows; what carries content is refused by name instead.
fn part(part: &Object<'_>) -> Result<Option<Part>, WireError> {
    let text = |name: &str| part.text(name)?.ok_or_else(|| part.missing(name));
    match part.text("type")?.as_deref() {
        None => Err(part.missing("type")),
        Some("input_text" | "output_text" | "text") => Ok(Some(Part::Text(text("text")?))),
        Some("refusal") => Ok(Some(Part::Text(text("refusal")?))),
        Some("input_image") => {
            let path = part.path().to_owned();
            Ok(Some(Part::Image { url: text("image_url")?, path }))
        }
        Some("input_file" | "input_audio") => {
            Err(part.unsupported("type", "only text and images are read"))
        }
        Some(_) => Ok(None),
    }
}

fn turn(role: Role, content: Vec<Part>) -> Message {
    Message { content, ..Message::text(role, "") }
}
