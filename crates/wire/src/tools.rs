//! Functions on offer and calls made, as far as the dialects agree on them.

use std::collections::HashSet;

use dialog::{Json, ToolChoice, ToolSpec};

use crate::WireError;
use crate::fields::Object;

/// The tools of one request, each name once.
pub(crate) struct Offer {
    /// In the caller's order.
    pub(crate) tools: Vec<ToolSpec>,
    names: HashSet<String>,
    longest_name: usize,
}

impl Offer {
    /// No tools yet; names may have so many bytes.
    pub(crate) fn new(longest_name: usize) -> Self {
        Self { tools: Vec::new(), names: HashSet::new(), longest_name }
    }

    /// Reads one function, whose JSON Schema is in the field `schema`.
    pub(crate) fn add(
        &mut self,
        function: &Object<'_>,
        schema: &str,
        is_deferred: bool,
    ) -> Result<(), WireError> {
        let tool = ToolSpec { is_deferred, ..self.read(function, schema)? };
        if !self.names.insert(tool.name.clone()) {
            return Err(function.wrong("name", "must be unique among the tools"));
        }
        self.tools.push(tool);
        Ok(())
    }

    /// The same for one that joins in the conversation, and may stand for an earlier one; its name.
    pub(crate) fn join(
        &mut self,
        function: &Object<'_>,
        schema: &str,
    ) -> Result<String, WireError> {
        let tool = ToolSpec { is_deferred: true, ..self.read(function, schema)? };
        let name = tool.name.clone();
        if self.names.insert(name.clone()) {
            self.tools.push(tool);
        } else if let Some(known) = self.tools.iter_mut().find(|known| known.name == name) {
            *known = tool;
        }
        Ok(name)
    }

    /// Whether a tool of this name waits to be told.
    pub(crate) fn defers(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.is_deferred && tool.name == name)
    }

    fn read(&self, function: &Object<'_>, schema: &str) -> Result<ToolSpec, WireError> {
        let longest = self.longest_name;
        let name = function.text("name")?.ok_or_else(|| function.missing("name"))?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        if name.is_empty() || name.len() > longest || !name.bytes().all(allowed) {
            let expected = format!("must be 1 to {longest} letters, digits, or any of _ - . :");
            return Err(function.wrong("name", expected));
        }
        let description = function.text("description")?;
        let parameters = match function.object(schema)? {
            None => None,
            Some(_) => Some(checked_schema(function, schema)?),
        };
        let strict = function.flag("strict")?.unwrap_or(false);
        Ok(ToolSpec { name, description, parameters, strict, is_deferred: false })
    }
}

/// The schema's text as it came; read once, so that a broken or bottomless one is refused here.
pub(crate) fn checked_schema(function: &Object<'_>, name: &str) -> Result<Json, WireError> {
    let Some(raw) = function.raw(name) else { return Err(function.missing(name)) };
    match serde_json::from_str::<serde_json::Value>(raw.get()) {
        Ok(_) => Ok(Json(raw.get().to_owned())),
        Err(_) => Err(function.wrong(name, "must be a JSON schema nested at most 127 deep")),
    }
}

/// What a `tool_choice` says, in whatever dialect.
pub(crate) enum Wish {
    /// The model decides.
    Auto,
    /// No calls.
    None,
    /// Some call.
    Required,
    /// This call.
    Named(String),
    /// Something that only other servers know.
    Foreign,
}

/// Holds a wish against the tools on offer.
pub(crate) fn choose(
    body: &Object<'_>,
    tools: &[ToolSpec],
    wish: Wish,
) -> Result<ToolChoice, WireError> {
    match wish {
        Wish::Auto => Ok(ToolChoice::Auto),
        Wish::None => Ok(ToolChoice::None),
        Wish::Required if tools.is_empty() => {
            Err(body.wrong("tool_choice", "must not be required without tools"))
        }
        Wish::Named(name) if tools.iter().all(|tool| tool.name != name) => {
            Err(body.wrong("tool_choice", "must name one of the tools"))
        }
        Wish::Required => Ok(ToolChoice::Required),
        Wish::Named(name) => Ok(ToolChoice::Named(name)),
        Wish::Foreign => {
            let advice = "only auto, none, required and functions are served";
            Err(body.unsupported("tool_choice", advice))
        }
    }
}

/// The words that both OpenAI dialects with tools have for a choice without a name.
pub(crate) fn wish_word(body: &Object<'_>) -> Result<Wish, WireError> {
    const WORDS: &str = "must be auto, none, required or an object that names a function";
    match body.text("tool_choice").map_err(|_| body.wrong("tool_choice", WORDS))?.as_deref() {
        None | Some("auto") => Ok(Wish::Auto),
        Some("none") => Ok(Wish::None),
        Some("required") => Ok(Wish::Required),
        Some(_) => Err(body.wrong("tool_choice", WORDS)),
    }
}

/// Requirement 19: templates get an object even where the wire carries a string that holds one.
pub(crate) fn arguments(call: &Object<'_>) -> Result<Json, WireError> {
    let Some(raw) = call.raw("arguments") else { return Ok(Json("{}".to_owned())) };
    let text = match raw.get().starts_with('"') {
        true => call.text("arguments")?.unwrap_or_default(),
        false => raw.get().to_owned(),
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(Json("{}".to_owned()));
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(_)) => Ok(Json(text.to_owned())),
        _ => Err(call.wrong("arguments", "must be a JSON object or a string that holds one")),
    }
}
