//! `tools` and `tool_choice`.

use dialog::{ToolChoice, ToolSpec};

use crate::WireError;
use crate::fields::Object;
use crate::tools::{Offer, Wish, choose};

/// The functions on offer and whether they may be called (requirement 17).
pub(super) fn offer(body: &Object<'_>) -> Result<(Vec<ToolSpec>, ToolChoice), WireError> {
    const LONGEST_NAME: usize = 128;
    let mut offer = Offer::new(LONGEST_NAME);
    for (index, raw) in body.array("tools")?.unwrap_or_default().into_iter().enumerate() {
        let tool = Object::from_value(raw, format!("tools[{index}]"))?;
        // Requirement 124: agents leave `type` out; other types are run by their vendor's servers.
        match tool.text("type")?.as_deref() {
            None | Some("custom") => offer.add(&tool, "input_schema")?,
            Some(_) => {}
        }
    }
    let wish = wish(body)?;
    let choice = choose(body, &offer.tools, wish)?;
    Ok((offer.tools, choice))
}

/// Whether one answer may call several times.
pub(super) fn may_call_several(body: &Object<'_>) -> Result<bool, WireError> {
    let Some(choice) = body.object("tool_choice")? else { return Ok(true) };
    Ok(!choice.flag("disable_parallel_tool_use")?.unwrap_or(false))
}

fn wish(body: &Object<'_>) -> Result<Wish, WireError> {
    let Some(choice) = body.object("tool_choice")? else { return Ok(Wish::Auto) };
    match choice.text("type")?.as_deref() {
        None => Err(choice.missing("type")),
        Some("auto") => Ok(Wish::Auto),
        Some("none") => Ok(Wish::None),
        Some("any") => Ok(Wish::Required),
        Some("tool") => {
            Ok(Wish::Named(choice.text("name")?.ok_or_else(|| choice.missing("name"))?))
        }
        Some(_) => Err(choice.wrong("type", "must be auto, any, tool or none")),
    }
}
