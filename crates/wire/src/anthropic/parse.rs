//! Body -> request.

use dialog::{AnswerFormat, GenerateRequest, Message, Prompt, ReasoningBudget, Role};

use super::{message, tools};
use crate::fields::{self, Object};
use crate::format::answer_format;
use crate::sampling::{min_tokens, sampling, stop};
use crate::sharing;
use crate::thinking::{self, Wish};
use crate::wishes::{self, refuse};
use crate::{WireError, peek};

/// How the caller wants the answer told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyOptions {
    /// Event by event instead of one body.
    pub stream: bool,
}

/// Reads a request for a message.
///
/// # Errors
///
/// The first field found wrong, by its path, with the value and the allowed range; a field that
/// would change the answer and is not honoured is refused by name.
pub fn parse(body: &[u8]) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    let body = fields::body(body)?;
    let model = peek::model(&body)?;
    let stream = body.flag("stream")?.unwrap_or(false);
    let max_tokens = body.integer("max_tokens", 1..=i64::from(i32::MAX))?;
    let max_tokens = max_tokens.ok_or_else(|| body.missing("max_tokens"))?;
    refuse_what_is_not_done(&body)?;
    let max_tokens = u32::try_from(max_tokens).ok();
    let request = GenerateRequest {
        sampling: sampling(&body)?,
        max_tokens,
        fit_context: true,
        min_tokens: min_tokens(&body, max_tokens)?,
        stop: stop(&body, "stop_sequences", MOST_STOPS)?,
        ignore_eos: body.flag("ignore_eos")?.unwrap_or(false),
        sharing: sharing::anthropic(&body)?,
        format: format(&body)?,
        ..prompt(&body, model, true)?
    };
    Ok((request, ReplyOptions { stream }))
}

/// Reads a request for the number of tokens of a prompt. Everything that shapes the prompt counts,
/// and nothing else is looked at.
///
/// # Errors
///
/// As [`parse`], for the fields that shape a prompt.
pub fn parse_count(body: &[u8]) -> Result<GenerateRequest, WireError> {
    let body = fields::body(body)?;
    let model = peek::model(&body)?;
    prompt(&body, model, false)
}

/// By which a client goes on with a conversation that its server has kept.
pub(super) const THREAD: &str = "thread";

const MOST_STOPS: usize = 16;

/// What shapes a prompt; `is_answered` if an answer is to follow it.
fn prompt(
    body: &Object<'_>,
    model: String,
    is_answered: bool,
) -> Result<GenerateRequest, WireError> {
    // Ignored, it would cost a conversation everything that was said before.
    if body.raw(THREAD).is_some() {
        let advice = "nothing is stored here, send the whole conversation";
        return Err(body.unsupported(THREAD, advice));
    }
    let mut offer = tools::offer(body)?;
    let conversation = message::conversation(body, &model, &mut offer)?;
    if is_answered {
        refuse_begun_answer(body, &conversation)?;
    }
    let mut tools = offer.tools;
    let tool_choice = tools::choice(body, &mut tools, &conversation)?;
    let parallel_tool_calls = tools::may_call_several(body)?;
    let wish = thinking(body)?;
    let prompt = Prompt::Chat(conversation);
    Ok(GenerateRequest {
        tools,
        tool_choice,
        parallel_tool_calls,
        reasoning: wish.reasoning(),
        reasoning_budget: wish.budget,
        ..GenerateRequest::new(model, prompt)
    })
}

/// Requirement 23: thoughts that nobody asked for, or that nobody is shown, are not generated. How
/// long they may be `budget_tokens` says, or else `output_config.effort`.
fn thinking(body: &Object<'_>) -> Result<Wish, WireError> {
    const LEAST_BUDGET: i64 = 1024;
    let effort = match body.object("output_config")? {
        Some(config) => thinking::effort(&config, "effort")?.budget,
        None => None,
    };
    let off = Wish { thinks: Some(false), budget: None };
    let Some(thinking) = body.object("thinking")? else { return Ok(off) };
    let is_hidden = thinking.text("display")?.as_deref() == Some("omitted");
    match thinking.text("type")?.as_deref() {
        None => Err(thinking.missing("type")),
        Some("disabled") => Ok(off),
        Some("adaptive") if is_hidden => Ok(off),
        Some("adaptive") => Ok(Wish { thinks: None, budget: effort }),
        Some("enabled") => {
            let budget = thinking::budget(&thinking, "budget_tokens", LEAST_BUDGET)?;
            let most = body.integer("max_tokens", 1..=i64::from(i32::MAX))?;
            if let (Some(ReasoningBudget::Tokens(budget)), Some(most)) = (budget, most)
                && i64::from(budget) >= most
            {
                let expected = format!("must be less than max_tokens, which is {most}");
                return Err(thinking.wrong("budget_tokens", expected));
            }
            if is_hidden {
                Ok(off)
            } else {
                Ok(Wish { thinks: Some(true), budget: budget.or(effort) })
            }
        }
        Some(_) => Err(thinking.wrong("type", "must be adaptive, enabled or disabled")),
    }
}

fn refuse_what_is_not_done(body: &Object<'_>) -> Result<(), WireError> {
    refuse(body, NOT_DONE)?;
    refuse(body, wishes::NOT_DONE)?;
    refuse(body, wishes::OTHER_FORMS)?;
    wishes::one_choice(body)
}

/// Fields of other dialects that this one has no place for, with the values that ask for nothing.
const NOT_DONE: &[(&str, &[&str])] = &[("logprobs", &["false", "0"]), ("top_logprobs", &["0"])];

/// `output_config.format`, or its older name.
fn format(body: &Object<'_>) -> Result<Option<AnswerFormat>, WireError> {
    let new = match body.object("output_config")? {
        Some(config) => answer_format(&config, "format")?,
        None => None,
    };
    Ok(new.or(answer_format(body, "output_format")?))
}

fn refuse_begun_answer(body: &Object<'_>, turns: &[Message]) -> Result<(), WireError> {
    match turns.last() {
        Some(last) if last.role == Role::Assistant => {
            let advice = "the last one must be the user's, an answer cannot be begun for the model";
            Err(body.unsupported("messages", advice))
        }
        _ => Ok(()),
    }
}
