//! `tools` and `tool_choice`.

use dialog::{ToolChoice, ToolSpec};

use crate::WireError;
use crate::fields::Object;
use crate::tools::{Offer, Wish, choose, wish_word};

/// The functions on offer and whether they may be called (requirement 13).
pub(super) fn offer(body: &Object<'_>) -> Result<(Vec<ToolSpec>, ToolChoice), WireError> {
    const LONGEST_NAME: usize = 64;
    let mut offer = Offer::new(LONGEST_NAME);
    for (index, raw) in body.array("tools")?.unwrap_or_default().into_iter().enumerate() {
        let tool = Object::from_value(raw, format!("tools[{index}]"))?;
        // Requirement 124: `namespace`, `web_search`, `custom` and whatever comes next.
        match tool.text("type")?.as_deref() {
            None | Some("function") => {}
            Some(_) => continue,
        }
        // Definitions are flat here; some clients send the nested form of the chat dialect.
        match tool.object("function")? {
            Some(nested) => offer.add(&nested, "parameters", false)?,
            None => offer.add(&tool, "parameters", false)?,
        }
    }
    let wish = wish(body)?;
    let choice = choose(body, &offer.tools, wish)?;
    Ok((offer.tools, choice))
}

fn wish(body: &Object<'_>) -> Result<Wish, WireError> {
    if !body.raw("tool_choice").is_some_and(|raw| raw.get().starts_with('{')) {
        return wish_word(body);
    }
    let choice = body.object("tool_choice")?.ok_or_else(|| body.missing("tool_choice"))?;
    match choice.text("type")?.as_deref() {
        None => Err(choice.missing("type")),
        Some("function") => {
            Ok(Wish::Named(choice.text("name")?.ok_or_else(|| choice.missing("name"))?))
        }
        Some(_) => Ok(Wish::Foreign),
    }
}
