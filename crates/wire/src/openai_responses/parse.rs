//! Body -> request.

use dialog::{GenerateRequest, Prompt};
use serde_json::value::RawValue;

use super::{Echo, input, tools};
use crate::fields::{self, Object};
use crate::format::answer_format;
use crate::logprobs::top_logprobs;
use crate::sampling::{FOUR_STOPS, min_tokens, sampling, stop};
use crate::sharing;
use crate::thinking::{self, Wish};
use crate::wishes::{self, refuse};
use crate::{WireError, peek};

/// How the caller wants the answer told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplyOptions {
    /// Event by event instead of one body.
    pub stream: bool,
    /// What every response repeats.
    pub echo: Echo,
}

/// Reads a request for a response.
///
/// # Errors
///
/// The first field found wrong, by its path, with the value and the allowed range; a field that
/// would change the answer and is not honoured is refused by name.
pub fn parse(body: &[u8]) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    let body = fields::body(body)?;
    let model = peek::model(&body)?;
    let stream = body.flag("stream")?.unwrap_or(false);
    let max_tokens = max_tokens(&body)?;
    refuse_what_is_not_done(&body)?;
    let conversation = input::conversation(&body)?;
    let (tools, tool_choice) = tools::offer(&body)?;
    let wish = thinking(&body)?;
    let wanted = body.array("include")?.unwrap_or_default();
    let wants_logprobs = wanted.iter().any(|raw| RawValue::get(raw) == LOGPROBS);
    let request = GenerateRequest {
        tools,
        tool_choice,
        parallel_tool_calls: body.flag("parallel_tool_calls")?.unwrap_or(true),
        format: match body.object("text")? {
            Some(text) => answer_format(&text, "format")?,
            None => None,
        },
        top_logprobs: top_logprobs(&body, wants_logprobs)?,
        reasoning: wish.reasoning(),
        reasoning_budget: wish.budget,
        sampling: sampling(&body)?,
        max_tokens,
        fit_context: true,
        min_tokens: min_tokens(&body, max_tokens)?,
        stop: stop(&body, "stop", FOUR_STOPS)?,
        ignore_eos: body.flag("ignore_eos")?.unwrap_or(false),
        sharing: sharing::openai(&body)?,
        ..GenerateRequest::new(model, Prompt::Chat(conversation))
    };
    let echo = Echo::new(&body, &request)?;
    Ok((request, ReplyOptions { stream, echo }))
}

/// What `include` holds where log-probabilities are wanted.
const LOGPROBS: &str = "\"message.output_text.logprobs\"";

/// The caller's cap on generated tokens.
pub(crate) fn max_tokens(body: &Object<'_>) -> Result<Option<u32>, WireError> {
    let most = body.integer("max_output_tokens", 1..=i64::from(i32::MAX))?;
    Ok(most.and_then(|tokens| u32::try_from(tokens).ok()))
}

fn thinking(body: &Object<'_>) -> Result<Wish, WireError> {
    match body.object("reasoning")? {
        None => Ok(Wish::default()),
        Some(reasoning) => thinking::effort(&reasoning, "effort"),
    }
}

/// Fields of this dialect that are not honoured, with the values that ask for nothing.
const NOT_DONE: &[(&str, &[&str])] =
    &[("background", &["false"]), ("conversation", &[]), ("prompt", &[])];

fn refuse_what_is_not_done(body: &Object<'_>) -> Result<(), WireError> {
    if let Some(id) = body.text("previous_response_id")? {
        return Err(WireError::not_stored("previous_response_id", &id));
    }
    refuse(body, NOT_DONE)?;
    refuse(body, wishes::NOT_DONE)?;
    refuse(body, wishes::OTHER_FORMS)?;
    wishes::one_choice(body)?;
    body.flag("store")?;
    Ok(())
}
