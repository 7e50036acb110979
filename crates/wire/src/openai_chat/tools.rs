//! `tools` and `tool_choice`.

use std::collections::HashSet;

use dialog::{Json, ToolChoice, ToolSpec};

use crate::WireError;
use crate::fields::Object;

/// The functions on offer and whether they may be called.
pub(super) fn offer(body: &Object<'_>) -> Result<(Vec<ToolSpec>, ToolChoice), WireError> {
    let tools = tools(body)?;
    let choice = choice(body, &tools)?;
    Ok((tools, choice))
}

/// Requirement 124: agents leave `type` out and send types that only other servers know.
fn tools(body: &Object<'_>) -> Result<Vec<ToolSpec>, WireError> {
    let mut tools = Vec::new();
    let mut names = HashSet::new();
    for (index, raw) in body.array("tools")?.unwrap_or_default().into_iter().enumerate() {
        let fields = Object::from_value(raw, format!("tools[{index}]"))?;
        match fields.text("type")?.as_deref() {
            None | Some("function") => {}
            Some(_) => continue,
        }
        let function = fields.object("function")?.ok_or_else(|| fields.missing("function"))?;
        let tool = function_spec(&function)?;
        if !names.insert(tool.name.clone()) {
            return Err(function.wrong("name", "must be unique among the tools"));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn function_spec(function: &Object<'_>) -> Result<ToolSpec, WireError> {
    const LONGEST: usize = 64;
    let name = function.text("name")?.ok_or_else(|| function.missing("name"))?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    if name.is_empty() || name.len() > LONGEST || !name.bytes().all(allowed) {
        let expected = format!("must be 1 to {LONGEST} letters, digits, or any of _ - . :");
        return Err(function.wrong("name", expected));
    }
    let description = function.text("description")?;
    let parameters = match function.object("parameters")? {
        None => None,
        Some(_) => Some(schema(function)?),
    };
    Ok(ToolSpec { name, description, parameters })
}

/// The schema's text as it came; read once, so that a broken or bottomless one is refused here.
fn schema(function: &Object<'_>) -> Result<Json, WireError> {
    let Some(raw) = function.raw("parameters") else { return Err(function.missing("parameters")) };
    match serde_json::from_str::<serde_json::Value>(raw.get()) {
        Ok(_) => Ok(Json(raw.get().to_owned())),
        Err(_) => {
            Err(function.wrong("parameters", "must be a JSON schema nested at most 127 deep"))
        }
    }
}

fn choice(body: &Object<'_>, tools: &[ToolSpec]) -> Result<ToolChoice, WireError> {
    const WORDS: &str = "must be auto, none, required or an object that names a function";
    let Some(raw) = body.raw("tool_choice") else { return Ok(ToolChoice::Auto) };
    if raw.get().starts_with('{') {
        return Err(named(body, tools));
    }
    match body.text("tool_choice").map_err(|_| body.wrong("tool_choice", WORDS))?.as_deref() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        Some("required") if tools.is_empty() => {
            Err(body.wrong("tool_choice", "must not be required without tools"))
        }
        Some("required") => Err(body.unsupported("tool_choice", "only auto and none are served")),
        _ => Err(body.wrong("tool_choice", WORDS)),
    }
}

/// Why a named choice is refused: it names nothing, nothing known, or what is not served.
fn named(body: &Object<'_>, tools: &[ToolSpec]) -> WireError {
    let name = || -> Result<Option<String>, WireError> {
        let choice = body.object("tool_choice")?.ok_or_else(|| body.missing("tool_choice"))?;
        if choice.text("type")?.is_some_and(|kind| kind != "function") {
            return Ok(None);
        }
        let function = choice.object("function")?.ok_or_else(|| choice.missing("function"))?;
        Ok(Some(function.text("name")?.ok_or_else(|| function.missing("name"))?))
    };
    match name() {
        Err(error) => error,
        Ok(Some(name)) if tools.iter().all(|tool| tool.name != name) => {
            body.wrong("tool_choice", "must name one of the tools")
        }
        Ok(_) => body.unsupported("tool_choice", "only auto and none are served"),
    }
}
