//! `system` and `messages` -> conversation.

use dialog::{Json, Message, Part, Role, ToolCall};

use super::content::{self, Content, content};
use super::signature;
use crate::WireError;
use crate::fields::Object;

/// The block that Claude Code changes with each request (requirement 131).
const BILLING: &str = "x-anthropic-billing-header:";

/// Reads the system prompt and all messages; system turns come first, wherever they stood
/// (requirement 18).
pub(super) fn conversation(body: &Object<'_>, model: &str) -> Result<Vec<Message>, WireError> {
    let raws = body.array("messages")?.ok_or_else(|| body.missing("messages"))?;
    if raws.is_empty() {
        return Err(body.wrong("messages", "must hold at least one message"));
    }
    let mut system = system(body, "system", false)?;
    let mut turns = Vec::new();
    for (index, raw) in raws.iter().enumerate() {
        let fields = Object::from_value(raw, format!("messages[{index}]"))?;
        match fields.text("role")?.as_deref() {
            None => return Err(fields.missing("role")),
            Some("user") => user(&fields, &mut turns)?,
            Some("assistant") => turns.push(assistant(&fields, model)?),
            Some("system" | "developer") => {
                system.extend(self::system(&fields, "content", true)?);
            }
            Some(_) => {
                return Err(fields.wrong("role", "must be one of user, assistant, system"));
            }
        }
    }
    system.append(&mut turns);
    Ok(system)
}

/// One turn a block, since blocks are paragraphs and the turns are joined as such. In the middle of
/// a conversation agents tell of changes too, such as further tools: `tells_more` shows what nobody
/// here knows as the JSON that it is.
fn system(parent: &Object<'_>, name: &str, tells_more: bool) -> Result<Vec<Message>, WireError> {
    let turn = |text: String| Message::text(Role::System, text);
    match content(parent, name)? {
        Content::Text(text) => Ok(vec![turn(text)]),
        Content::Blocks(blocks) => {
            let raws = parent.array(name)?.unwrap_or_default();
            let mut turns = Vec::new();
            for (block, raw) in blocks.iter().zip(raws) {
                if content::kind(block)? != "text" {
                    if !tells_more {
                        return Err(block.wrong("type", "must be text"));
                    }
                    turns.push(turn(raw.get().to_owned()));
                    continue;
                }
                let text = content::text(block)?;
                if !is_billing(&text) {
                    turns.push(turn(text));
                }
            }
            Ok(turns)
        }
    }
}

fn is_billing(text: &str) -> bool {
    text.starts_with(BILLING) && !text.trim_end().contains('\n')
}

/// Results of tools come first, each as a turn of its own; what the user says follows.
fn user(fields: &Object<'_>, turns: &mut Vec<Message>) -> Result<(), WireError> {
    if fields.raw("content").is_none() {
        return Err(fields.missing("content"));
    }
    let blocks = match content(fields, "content")? {
        Content::Text(text) => {
            turns.push(Message::text(Role::User, text));
            return Ok(());
        }
        Content::Blocks(blocks) => blocks,
    };
    let before = turns.len();
    let mut parts = Vec::new();
    for block in &blocks {
        if content::kind(block)? == "tool_result" {
            turns.push(tool_result(block)?);
            continue;
        }
        parts.push(content::shown(block)?.ok_or_else(|| content::unknown(block))?);
    }
    if !parts.is_empty() || turns.len() == before {
        turns.push(turn(Role::User, parts));
    }
    Ok(())
}

fn tool_result(block: &Object<'_>) -> Result<Message, WireError> {
    let is_error = block.flag("is_error")?.unwrap_or(false);
    let id = block.text("tool_use_id")?.ok_or_else(|| block.missing("tool_use_id"))?;
    let content = content::result(block)?;
    Ok(Message { tool_call_id: Some(id), is_error, ..turn(Role::Tool, content) })
}

fn assistant(fields: &Object<'_>, model: &str) -> Result<Message, WireError> {
    if fields.raw("content").is_none() {
        return Err(fields.missing("content"));
    }
    let blocks = match content(fields, "content")? {
        Content::Text(text) => return Ok(Message::text(Role::Assistant, text)),
        Content::Blocks(blocks) => blocks,
    };
    let mut message = turn(Role::Assistant, Vec::new());
    for block in &blocks {
        match content::kind(block)?.as_str() {
            "text" => message.content.push(Part::Text(content::text(block)?)),
            "tool_use" => message.tool_calls.push(tool_use(block)?),
            "thinking" => {
                let thinking = block.text("thinking")?.ok_or_else(|| block.missing("thinking"))?;
                let signed = block.text("signature")?.unwrap_or_default();
                if signed.is_empty() || signed == signature::of_model(model) {
                    message.reasoning.get_or_insert_default().push_str(&thinking);
                }
            }
            // Of servers' own tools and of other vendors' models.
            _ => {}
        }
    }
    Ok(message)
}

fn tool_use(block: &Object<'_>) -> Result<ToolCall, WireError> {
    let id = block.text("id")?.ok_or_else(|| block.missing("id"))?;
    let name = block.text("name")?.ok_or_else(|| block.missing("name"))?;
    let arguments = match (block.object("input")?, block.raw("input")) {
        (Some(_), Some(raw)) if serde_json::from_str::<serde_json::Value>(raw.get()).is_ok() => {
            Json(raw.get().to_owned())
        }
        (Some(_), _) => return Err(block.wrong("input", "must be JSON nested at most 127 deep")),
        (None, _) => Json("{}".to_owned()),
    };
    Ok(ToolCall { id, name, arguments })
}

fn turn(role: Role, content: Vec<Part>) -> Message {
    Message { content, ..Message::text(role, "") }
}
