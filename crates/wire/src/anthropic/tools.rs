//! `tools` and `tool_choice`.

use dialog::{Message, Part, ToolChoice, ToolSpec};

use crate::WireError;
use crate::fields::Object;
use crate::tools::{Offer, Wish, choose};

/// The functions on offer (requirement 17). One that is deferred waits until the conversation
/// names it, so that tools which are found on the way do not change what stands before everything;
/// where only a vendor's server could find it, it waits for nothing.
pub(super) fn offer(body: &Object<'_>) -> Result<Offer, WireError> {
    const LONGEST_NAME: usize = 128;
    const SEARCHED_BY_SERVERS: &str = "tool_search_tool_";
    let mut offer = Offer::new(LONGEST_NAME);
    let mut is_searchable = true;
    for (index, raw) in body.array("tools")?.unwrap_or_default().into_iter().enumerate() {
        let tool = Object::from_value(raw, format!("tools[{index}]"))?;
        // Requirement 124: agents leave `type` out; other types are run by their vendor's servers.
        match tool.text("type")?.as_deref() {
            None | Some("custom") => {
                let is_deferred = tool.flag("defer_loading")?.unwrap_or(false);
                offer.add(&tool, "input_schema", is_deferred)?;
            }
            Some(kind) if kind.starts_with(SEARCHED_BY_SERVERS) => is_searchable = false,
            Some(_) => {}
        }
    }
    if !is_searchable || offer.tools.iter().all(|tool| tool.is_deferred) {
        offer.tools.iter_mut().for_each(|tool| tool.is_deferred = false);
    }
    Ok(offer)
}

/// Whether they may be called; a tool that has to be called is told in any case.
pub(super) fn choice(
    body: &Object<'_>,
    tools: &mut [ToolSpec],
    conversation: &[Message],
) -> Result<ToolChoice, WireError> {
    let is_told = |tool: &ToolSpec| {
        let parts = || conversation.iter().flat_map(|message| &message.content);
        let tells = |part: &Part| matches!(part, Part::Tool(name) if *name == tool.name);
        !tool.is_deferred || parts().any(tells)
    };
    let choice = choose(body, tools, wish(body)?)?;
    for tool in tools.iter_mut() {
        let is_named = matches!(&choice, ToolChoice::Named(name) if *name == tool.name);
        tool.is_deferred &= !is_named || is_told(tool);
    }
    Ok(choice)
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
