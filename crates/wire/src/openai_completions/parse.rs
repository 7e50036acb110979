//! Body -> request.

use dialog::{GenerateRequest, Prompt};
use serde_json::value::RawValue;

use crate::fields::{self, Object};
use crate::format::any_format;
use crate::logprobs::MOST_RIVALS;
use crate::sampling::{FOUR_STOPS, min_tokens, sampling, stop};
use crate::sharing;
use crate::wishes::{self, refuse};
use crate::{WireError, peek};

/// How the caller wants the answer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyOptions {
    /// Event by event instead of one body.
    pub stream: bool,
    /// A chunk with the usage before the end of the stream.
    pub include_usage: bool,
    /// Independent answers to tell; at least 1.
    pub choices: u32,
}

impl Default for ReplyOptions {
    fn default() -> Self {
        Self { stream: false, include_usage: false, choices: 1 }
    }
}

/// Reads a completion request.
///
/// # Errors
///
/// The first field found wrong, by its path, with the value and the allowed range; a field that
/// would change the answer and is not honoured is refused by name.
pub fn parse(body: &[u8]) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    let body = fields::body(body)?;
    let model = peek::model(&body)?;
    refuse(&body, NOT_DONE)?;
    refuse(&body, wishes::NOT_DONE)?;
    let max_tokens = peek::max_tokens(&body)?;
    let (format, format_field) = any_format(&body)?;
    let request = GenerateRequest {
        sampling: sampling(&body)?,
        max_tokens,
        min_tokens: min_tokens(&body, max_tokens)?,
        stop: stop(&body, "stop", FOUR_STOPS)?,
        ignore_eos: body.flag("ignore_eos")?.unwrap_or(false),
        sharing: sharing::openai(&body)?,
        format,
        format_field,
        choices: wishes::choices(&body)?,
        top_logprobs: rivals(&body)?,
        ..GenerateRequest::new(model, prompt(&body)?)
    };
    let stream = body.flag("stream")?.unwrap_or(false);
    let include_usage = match body.object("stream_options")? {
        Some(options) => options.flag("include_usage")?.unwrap_or(false),
        None => false,
    };
    let (include_usage, choices) = (stream && include_usage, request.choices);
    Ok((request, ReplyOptions { stream, include_usage, choices }))
}

/// Fields of this dialect that are not honoured, with the values that ask for nothing.
const NOT_DONE: &[(&str, &[&str])] =
    &[("top_logprobs", &["0"]), ("prompt_embeds", &[]), ("add_special_tokens", &["false"])];

/// Here `logprobs` is a number, and 0 asks for the chosen token's.
fn rivals(body: &Object<'_>) -> Result<Option<u8>, WireError> {
    if body.raw("logprobs").is_some_and(|raw| raw.get() == "false") {
        return Ok(None);
    }
    let rivals = body.integer("logprobs", 0..=MOST_RIVALS)?;
    Ok(rivals.and_then(|rivals| u8::try_from(rivals).ok()))
}

const FORMS: &str = "must be a string, an array of token ids, or an array that holds one of them";

/// A text or token ids, bare or as the only one of an array.
fn prompt(body: &Object<'_>) -> Result<Prompt, WireError> {
    let raw = body.raw("prompt").ok_or_else(|| body.missing("prompt"))?;
    if raw.get().starts_with('"') {
        return Ok(Prompt::Text(body.text("prompt")?.unwrap_or_default()));
    }
    if !raw.get().starts_with('[') {
        return Err(body.wrong("prompt", FORMS));
    }
    let items = body.array("prompt")?.unwrap_or_default();
    let Some(first) = items.first() else { return Err(body.wrong("prompt", FORMS)) };
    let is_list = |raw: &RawValue| matches!(raw.get().as_bytes().first(), Some(b'"' | b'['));
    if !is_list(first) {
        return tokens(body, &items);
    }
    if items.len() > 1 {
        return Err(body.unsupported("prompt", "send one prompt a request"));
    }
    if first.get().starts_with('"') {
        return Ok(Prompt::Text(fields::text(first, || "prompt[0]".to_owned())?));
    }
    let inner: Vec<&RawValue> =
        serde_json::from_str(first.get()).map_err(|_| body.wrong("prompt", FORMS))?;
    tokens(body, &inner)
}

fn tokens(body: &Object<'_>, items: &[&RawValue]) -> Result<Prompt, WireError> {
    let ids: Option<Vec<u32>> = items.iter().map(|raw| raw.get().parse().ok()).collect();
    match ids {
        Some(ids) if !ids.is_empty() => Ok(Prompt::Tokens(ids)),
        _ => Err(body.wrong("prompt", FORMS)),
    }
}
