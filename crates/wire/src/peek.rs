//! What the gateway needs from a body, without building the whole of it.

use crate::{WireError, fields};

/// The fields by which a request is routed and held to limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The id or alias that the caller asks for.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The caller's cap on generated tokens.
    pub max_tokens: Option<u32>,
    /// How many answers the caller asks for; 1 where the node will refuse the field.
    pub choices: u32,
}

/// Reads the routing fields of a chat body.
///
/// The whole body is checked for JSON syntax, nothing else is allocated than the names of its
/// top-level fields. Duplicate keys: the last one wins, as in the dialects' `parse`.
///
/// # Errors
///
/// The same as the dialects' `parse` gives for these fields.
pub fn peek(body: &[u8]) -> Result<Peek, WireError> {
    let body = fields::body(body)?;
    Ok(Peek {
        model: model(&body)?,
        stream: body.flag("stream")?.unwrap_or(false),
        max_tokens: max_tokens(&body)?,
        choices: choices(&body),
    })
}

pub(crate) fn model(body: &fields::Object<'_>) -> Result<String, WireError> {
    let model = body.text("model")?.ok_or_else(|| body.missing("model"))?;
    if model.is_empty() {
        return Err(body.wrong("model", "must name a model"));
    }
    Ok(model)
}

/// A bad value is the node's to refuse.
pub(crate) fn choices(body: &fields::Object<'_>) -> u32 {
    let asked = body.integer("n", 1..=128).ok().flatten();
    asked.and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
}

/// `max_completion_tokens` wins over the older `max_tokens`; both must be in range.
pub(crate) fn max_tokens(body: &fields::Object<'_>) -> Result<Option<u32>, WireError> {
    let limit = 1..=i64::from(i32::MAX);
    let current = body.integer("max_completion_tokens", limit.clone())?;
    let older = body.integer("max_tokens", limit)?;
    Ok(current.or(older).and_then(|tokens| u32::try_from(tokens).ok()))
}
