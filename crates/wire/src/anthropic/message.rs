//! `system` and `messages` -> conversation.

use dialog::{Json, Message, Part, Role, ToolCall};

use super::changes;
use super::content::{self, Content, content};
use super::signature;
use crate::WireError;
use crate::fields::Object;
use crate::tools::Offer;

/// The block that Claude Code changes with each request (requirement 131).
const BILLING: &str = "x-anthropic-billing-header:";

/// Reads the system prompt and all messages; system turns come first, wherever they stood
/// (requirement 18). What a system turn changes about the tools stays where it was said, within
/// the user's turn beside it: templates know no other place, and at the front it would change what
/// was computed for all that was said before.
pub(super) fn conversation(
    body: &Object<'_>,
    model: &str,
    offer: &mut Offer,
) -> Result<Vec<Message>, WireError> {
    let raws = body.array("messages")?.ok_or_else(|| body.missing("messages"))?;
    if raws.is_empty() {
        return Err(body.wrong("messages", "must hold at least one message"));
    }
    let mut system = system(body)?;
    let mut turns: Vec<Message> = Vec::new();
    let mut changes = Vec::new();
    for (index, raw) in raws.iter().enumerate() {
        let fields = Object::from_value(raw, format!("messages[{index}]"))?;
        match fields.text("role")?.as_deref() {
            None => return Err(fields.missing("role")),
            Some("user") => {
                let at = turns.len();
                user(&fields, offer, &mut turns)?;
                turns[at].content.splice(0..0, changes.drain(..));
            }
            Some("assistant") => turns.push(assistant(&fields, model)?),
            Some("system" | "developer") => {
                let told = changes::told(&fields, offer, &mut system)?;
                match turns.last_mut() {
                    Some(turn) if turn.role != Role::Assistant => turn.content.extend(told),
                    _ => changes.extend(told),
                }
            }
            Some(_) => {
                return Err(fields.wrong("role", "must be one of user, assistant, system"));
            }
        }
    }
    if !changes.is_empty() {
        turns.push(turn(Role::User, changes));
    }
    system.append(&mut turns);
    Ok(system)
}

/// One turn a block, since blocks are paragraphs and the turns are joined as such.
fn system(body: &Object<'_>) -> Result<Vec<Message>, WireError> {
    let turn = |text: String| Message::text(Role::System, text);
    let blocks = match content(body, "system")? {
        Content::Text(text) => return Ok(vec![turn(text)]),
        Content::Blocks(blocks) => blocks,
    };
    let mut turns = Vec::new();
    for block in &blocks {
        if content::kind(block)? != "text" {
            return Err(block.wrong("type", "must be text"));
        }
        let text = content::text(block)?;
        if !is_billing(&text) {
            turns.push(turn(text));
        }
    }
    Ok(turns)
}

pub(super) fn is_billing(text: &str) -> bool {
    text.starts_with(BILLING) && !text.trim_end().contains('\n')
}

/// Results of tools come first, each as a turn of its own; what the user says follows.
fn user(fields: &Object<'_>, offer: &Offer, turns: &mut Vec<Message>) -> Result<(), WireError> {
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
            turns.push(tool_result(block, offer)?);
            continue;
        }
        parts.push(content::shown(block)?.ok_or_else(|| content::unknown(block))?);
    }
    if !parts.is_empty() || turns.len() == before {
        turns.push(turn(Role::User, parts));
    }
    Ok(())
}

fn tool_result(block: &Object<'_>, offer: &Offer) -> Result<Message, WireError> {
    let is_error = block.flag("is_error")?.unwrap_or(false);
    let id = block.text("tool_use_id")?.ok_or_else(|| block.missing("tool_use_id"))?;
    let content = content::result(block, offer)?;
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
