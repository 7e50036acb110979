//! `tools` and `tool_choice`.

use dialog::{ToolChoice, ToolSpec};

use crate::WireError;
use crate::fields::Object;
use crate::tools::{Offer, Wish, choose, wish_word};

/// The functions on offer and whether they may be called.
pub(super) fn offer(body: &Object<'_>) -> Result<(Vec<ToolSpec>, ToolChoice), WireError> {
    let tools = tools(body)?;
    let wish = wish(body)?;
    let choice = choose(body, &tools, wish)?;
    Ok((tools, choice))
}

/// Requirement 124: agents leave `type` out and send types that only other servers know.
fn tools(body: &Object<'_>) -> Result<Vec<ToolSpec>, WireError> {
    const LONGEST_NAME: usize = 64;
    let mut offer = Offer::new(LONGEST_NAME);
    for (index, raw) in body.array("tools")?.unwrap_or_default().into_iter().enumerate() {
        let fields = Object::from_value(raw, format!("tools[{index}]"))?;
        match fields.text("type")?.as_deref() {
            None | Some("function") => {}
            Some(_) => continue,
        }
        let function = fields.object("function")?.ok_or_else(|| fields.missing("function"))?;
        offer.add(&function, "parameters", false)?;
    }
    Ok(offer.tools)
}

fn wish(body: &Object<'_>) -> Result<Wish, WireError> {
    if !body.raw("tool_choice").is_some_and(|raw| raw.get().starts_with('{')) {
        return wish_word(body);
    }
    let choice = body.object("tool_choice")?.ok_or_else(|| body.missing("tool_choice"))?;
    if choice.text("type")?.is_some_and(|kind| kind != "function") {
        return Ok(Wish::Foreign);
    }
    let function = choice.object("function")?.ok_or_else(|| choice.missing("function"))?;
    Ok(Wish::Named(function.text("name")?.ok_or_else(|| function.missing("name"))?))
}
