//! Body -> request.

use dialog::{GenerateRequest, Json, Prompt};

use super::{message, tools};
use crate::fields::{self, Object};
use crate::format::any_format;
use crate::logprobs::top_logprobs;
use crate::sampling::{FOUR_STOPS, min_tokens, sampling, stop};
use crate::sharing;
use crate::thinking::{self, Wish};
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

/// Reads a chat completion request.
///
/// # Errors
///
/// The first field found wrong, by its path, with the value and the allowed range; a field that
/// would change the answer and is not honoured is refused by name.
pub fn parse(body: &[u8]) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    let body = fields::body(body)?;
    let model = peek::model(&body)?;
    refuse_what_is_not_done(&body)?;
    let messages = message::conversation(&body)?;
    let (wish, template_arguments) = thinking(&body)?;
    let (tools, tool_choice) = tools::offer(&body)?;
    let max_tokens = peek::max_tokens(&body)?;
    let wants_logprobs = body.flag("logprobs")?.unwrap_or(false);
    let (format, format_field) = any_format(&body)?;
    let request = GenerateRequest {
        tools,
        tool_choice,
        parallel_tool_calls: body.flag("parallel_tool_calls")?.unwrap_or(true),
        format,
        format_field,
        reasoning: wish.reasoning(),
        reasoning_budget: wish.budget,
        template_arguments,
        sampling: sampling(&body)?,
        max_tokens,
        min_tokens: min_tokens(&body, max_tokens)?,
        stop: stop(&body, "stop", FOUR_STOPS)?,
        ignore_eos: body.flag("ignore_eos")?.unwrap_or(false),
        sharing: sharing::openai(&body)?,
        choices: wishes::choices(&body)?,
        top_logprobs: top_logprobs(&body, wants_logprobs)?,
        ..GenerateRequest::new(model, Prompt::Chat(messages))
    };
    let options = reply_options(&body, request.choices)?;
    Ok((request, options))
}

fn reply_options(body: &Object<'_>, choices: u32) -> Result<ReplyOptions, WireError> {
    let stream = body.flag("stream")?.unwrap_or(false);
    let include_usage = match body.object("stream_options")? {
        Some(options) => options.flag("include_usage")?.unwrap_or(false),
        None => false,
    };
    Ok(ReplyOptions { stream, include_usage: stream && include_usage, choices })
}

/// The most particular wish wins: `chat_template_kwargs.enable_thinking`, then
/// `enable_thinking`, then `thinking`, then `reasoning`, then `reasoning_effort`. Thoughts that the
/// caller does not want to see are not generated (requirement 23).
fn thinking(body: &Object<'_>) -> Result<(Wish, Option<Json>), WireError> {
    let (nested, arguments) = template_arguments(body)?;
    let flat = body.flag("enable_thinking")?;
    let named =
        Wish { thinks: nested.or(flat), budget: thinking::budget(body, "thinking_budget", 0)? };
    let object = match body.object("thinking")? {
        None => Wish::default(),
        Some(object) => Wish {
            thinks: match object.text("type")?.as_deref() {
                Some("enabled") => Some(true),
                Some("disabled") => Some(false),
                Some("adaptive") => None,
                _ => return Err(object.wrong("type", "must be enabled, disabled or adaptive")),
            },
            budget: thinking::budget(&object, "budget_tokens", 0)?,
        },
    };
    let wish = named.or(object).or(router(body)?).or(thinking::effort(body, "reasoning_effort")?);
    match body.flag("include_reasoning")? {
        Some(false) => Ok((Wish { thinks: Some(false), ..wish }, arguments)),
        _ => Ok((wish, arguments)),
    }
}

/// `reasoning`, as routers have it.
fn router(body: &Object<'_>) -> Result<Wish, WireError> {
    let Some(object) = body.object("reasoning")? else { return Ok(Wish::default()) };
    let hidden = object.flag("exclude")?.unwrap_or(false);
    let enabled = object.flag("enabled")?;
    let own = Wish {
        thinks: if hidden { Some(false) } else { enabled },
        budget: thinking::budget(&object, "max_tokens", 0)?,
    };
    Ok(own.or(thinking::effort(&object, "effort")?))
}

fn template_arguments(body: &Object<'_>) -> Result<(Option<bool>, Option<Json>), WireError> {
    let Some(arguments) = body.object("chat_template_kwargs")? else { return Ok((None, None)) };
    let enable_thinking = arguments.flag("enable_thinking")?;
    let mut others = serde_json::Map::new();
    for (name, raw) in arguments.entries().filter(|(name, _)| *name != "enable_thinking") {
        let value = serde_json::from_str(raw.get()).map_err(|_| {
            fields::invalid(arguments.at(name), "must be plain JSON".to_owned(), raw)
        })?;
        others.insert(name.to_owned(), value);
    }
    let others = (!others.is_empty()).then(|| Json(serde_json::Value::Object(others).to_string()));
    Ok((enable_thinking, others))
}

/// Fields of this dialect that are not honoured, with the values that ask for nothing.
const NOT_DONE: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("modalities", &["[\"text\"]"]),
    ("functions", &["[]"]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("web_search_options", &[]),
    ("verbosity", &["\"medium\""]),
    ("chat_template", &[]),
    ("add_generation_prompt", &["true"]),
    ("continue_final_message", &["false"]),
    ("documents", &["[]"]),
];

fn refuse_what_is_not_done(body: &Object<'_>) -> Result<(), WireError> {
    refuse(body, NOT_DONE)?;
    refuse(body, wishes::NOT_DONE)
}
