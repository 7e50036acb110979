//! What agents say in system turns amid a conversation: more instructions, and changes of tools.

use dialog::{Message, Part, Role};

use super::content::{self, Content, content};
use super::message::is_billing;
use crate::WireError;
use crate::fields::Object;
use crate::tools::Offer;

/// Reads one such turn. Its texts join `system`, one turn a block; the changes are returned, to be
/// told where they were said. What nobody here knows is told as the JSON that it is.
pub(super) fn told(
    turn: &Object<'_>,
    offer: &mut Offer,
    system: &mut Vec<Message>,
) -> Result<Vec<Part>, WireError> {
    let blocks = match content(turn, "content")? {
        Content::Text(text) => {
            system.push(Message::text(Role::System, text));
            return Ok(Vec::new());
        }
        Content::Blocks(blocks) => blocks,
    };
    let raws = turn.array("content")?.unwrap_or_default();
    let mut changes = Vec::new();
    for (block, raw) in blocks.iter().zip(raws) {
        match content::kind(block)?.as_str() {
            "text" => {
                let text = content::text(block)?;
                if !is_billing(&text) {
                    system.push(Message::text(Role::System, text));
                }
            }
            kind => {
                let joins = if kind == "tool_addition" { joining(block, offer)? } else { None };
                let words = || Part::Text(format!("\n{}\n", raw.get()));
                changes.push(joins.map_or_else(words, Part::Tool));
            }
        }
    }
    Ok(changes)
}

/// The name of a tool that joins: one that was deferred, or one that is defined here.
fn joining(block: &Object<'_>, offer: &mut Offer) -> Result<Option<String>, WireError> {
    let tool = block.object("tool")?.ok_or_else(|| block.missing("tool"))?;
    match tool.text("type")?.as_deref() {
        Some("tool_reference") => {
            let name = tool.text("name")?.ok_or_else(|| tool.missing("name"))?;
            Ok(offer.defers(&name).then_some(name))
        }
        Some("tool_definition") => {
            let definition = tool.object("definition")?;
            let definition = definition.ok_or_else(|| tool.missing("definition"))?;
            offer.join(&definition, "input_schema").map(Some)
        }
        _ => Ok(None),
    }
}
