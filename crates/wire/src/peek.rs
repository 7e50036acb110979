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

/// The same body with another name for its model; everything else stays byte for byte. None where
/// [`peek`] finds no model.
#[must_use]
pub fn renamed(body: &[u8], model: &str) -> Option<Vec<u8>> {
    let fields = fields::body(body).ok()?;
    let raw = fields.raw("model")?.get();
    // The slice lies in the body: fields are read without a copy.
    let start = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let (before, rest) = body.split_at_checked(start)?;
    let after = rest.get(raw.len()..)?;
    let name = serde_json::to_vec(model).ok()?;
    Some([before, &name, after].concat())
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

#[cfg(test)]
mod tests {
    use super::renamed;

    // Requirement 44
    #[test]
    fn only_the_models_name_changes() {
        let body = "{ \"model\" : \"alias\\u0021\", \"x\":{\"model\":1},\n\"m\":\"é\"}";
        let wanted = "{ \"model\" : \"a/b\\\"c\", \"x\":{\"model\":1},\n\"m\":\"é\"}";
        let got = renamed(body.as_bytes(), "a/b\"c").expect("it has a model");
        assert_eq!(String::from_utf8_lossy(&got), wanted);
        let twice = renamed(br#"{"model":"a","model":"b"}"#, "c").expect("it has a model");
        assert_eq!(twice, br#"{"model":"a","model":"c"}"#);
        assert_eq!(renamed(b"{}", "c"), None);
    }
}
