//! Everything that can refuse a request, in the order in which it is cheap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dialog::{Defaults, GenerateRequest, SamplingParams};
use engine::{End, EngineInfo, Grammar, PartLimit, Refusal, Sampling, TokenRequest};
use text::{FormatPart, Prepared, StreamOptions, TextError, TextModel, TextStream, ThoughtLimit};
use wire::{Dialect, ErrorBody, Reply};

use super::answer::{Answer, Rest};
use super::marks::{SoFar, Stamp};
use super::prompt::{self, Read, unavailable};
use crate::app::{App, unix_secs};
use crate::asker::Asker;
use crate::models::live::{Ending, NotTaken, Times};
use crate::models::served::Served;
use crate::models::ticket::{Batch, Ticket};
use crate::story::{Outcome, Story};

/// Cap on generated tokens where the request names none (requirement 25).
const DEFAULT_MAX_TOKENS: u32 = 8192;

/// Used where neither the request nor the model says anything (requirement 30). Cutting off the
/// tail is not optional at this temperature: without it every long answer derails some day.
const FALLBACK_TEMPERATURE: f32 = 0.7;
const FALLBACK_TOP_P: f32 = 0.95;

/// A request that the engine has accepted.
pub(super) struct Admitted {
    pub(super) answer: Answer,
    pub(super) reply: Reply,
    /// What makes the answer's ids, here or where it goes on.
    pub(super) mark: Stamp,
    /// Whether another node could go on with it.
    pub(super) is_resumable: bool,
    /// Happenings that another node has told already.
    pub(super) told: usize,
}

/// Takes a body to an accepted request. Nothing has been sent to the client yet, so that every
/// refusal on the way is an HTTP status (requirement 7).
pub(super) async fn admit(
    app: &App,
    dialect: Dialect,
    asker: &Asker,
    body: Bytes,
    arrived: Instant,
    so_far: Option<SoFar>,
) -> Result<Admitted, ErrorBody> {
    let beginnings = dialect.beginnings(&body);
    let parse = move |body: &[u8]| dialect.parse(body);
    let read = prompt::read(app, dialect.prompt_field(), body, parse).await?;
    let Read { request, also: reply, served, model, info, prepared } = read;
    let grammar = model.grammar(&request, &prepared);
    let grammar = grammar.map_err(|error| refuse_form(form_field(dialect, &request), &error))?;
    // Of several answers none is told to its end before the others; log-probabilities that were
    // told once are gone.
    let is_resumable = request.choices == 1 && request.top_logprobs.is_none();
    let mut token_request = TokenRequest {
        grammar: grammar.map(Grammar),
        isolation: app.isolation.key(asker.identity.as_ref(), &request.sharing),
        ..token_request(dialect, &request, &prepared, &model, &info)?
    };
    let (mark, batches) = begun(so_far, is_resumable, token_request.sampling.seed)?;
    token_request.sampling.seed = mark.seed;
    token_request.answered = batches.concat();
    let end = ended(&token_request);
    let mut story = Story {
        request_id: Arc::clone(&asker.request_id),
        served: Arc::clone(&served),
        dialect: dialect.name(),
        stream: reply.is_stream(),
        arrived,
        usage: dialog::Usage {
            prompt_tokens: prepared.tokens.len() as u32,
            ..dialog::Usage::default()
        },
        times: Times::default(),
        turns: prepared.turns.clone(),
        outcome: Some(Outcome::Refused),
        span: app.traces.as_ref().map(|it| it.begin("generate", asker.parent.as_ref())),
    };
    let options = StreamOptions::new(&request, &prepared, mark.calls.as_str());
    let text = TextStream::new(Arc::clone(&model), options.clone());
    let told = batches.len();
    if let Some(end) = end {
        // Everything was said but that it was everything.
        story.outcome = None;
        let answer = Answer::continued(None, text, earlier(batches, Some(end)), story);
        return Ok(Admitted { answer, reply, mark, is_resumable, told });
    }
    let ticket = submit(&served, token_request.clone())?;
    story.outcome = None;
    if let Err(ending) = ticket.accepted().await {
        story.outcome = Some(Outcome::Refused);
        let form = request.format.as_ref().map(|_| form_field(dialect, &request));
        return Err(refuse_ending(dialect.prompt_field(), form, ending));
    }
    served.remember(&beginnings);
    let count = request.choices - 1;
    let answer = if told > 0 {
        Answer::continued(Some(ticket), text, earlier(batches, None), story)
    } else {
        let rest = (count > 0).then_some(Rest { count, request: token_request, model, options });
        Answer::new(ticket, text, rest, story)
    };
    Ok(Admitted { answer, reply, mark, is_resumable, told })
}

fn submit(served: &Arc<Served>, request: TokenRequest) -> Result<Ticket, ErrorBody> {
    served.live.submit(request).map_err(|why| refuse_not_taken(served, why))
}

/// What an answer goes on from: what another node said, or nothing.
fn begun(
    so_far: Option<SoFar>,
    is_resumable: bool,
    seed: u64,
) -> Result<(Stamp, Vec<Vec<u32>>), ErrorBody> {
    match so_far {
        Some(_) if !is_resumable => {
            let message = "an answer of several, or with log-probabilities, is not continued";
            Err(ErrorBody::invalid_request(message))
        }
        Some(SoFar { stamp, batches }) => Ok((stamp, batches)),
        None => Ok((fresh_mark(seed), Vec::new())),
    }
}

/// The mark of an answer that begins here.
fn fresh_mark(seed: u64) -> Stamp {
    let mut calls = uuid::Uuid::new_v4().simple().to_string();
    calls.truncate(12);
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    Stamp { nonce, created: unix_secs(), seed, calls }
}

/// How an answer that was begun elsewhere has ended there already, if it has.
fn ended(request: &TokenRequest) -> Option<End> {
    let last = request.answered.last()?;
    let is_stop = request.stop_tokens.contains(last);
    let is_full = request.answered.len() as u64 >= u64::from(request.max_tokens);
    is_stop.then_some(End::Stop).or(is_full.then_some(End::Length))
}

/// What another node told, to be told again; its first happening is every answer's beginning.
fn earlier(batches: Vec<Vec<u32>>, end: Option<End>) -> VecDeque<Batch> {
    let batch = |tokens| Batch { tokens, logprobs: Vec::new(), ending: None };
    let ending = end.map(Ending::Done);
    let last = ending.map(|ending| Batch { ending: Some(ending), ..batch(Vec::new()) });
    batches.into_iter().skip(1).map(batch).chain(last).collect()
}

/// The field that asks for a form of the answer.
fn form_field(dialect: Dialect, request: &GenerateRequest) -> &'static str {
    request.format_field.unwrap_or(dialect.format_field())
}

/// The form of the answer is refused under the name of the field that asks for it.
fn refuse_form(field: &str, error: &TextError) -> ErrorBody {
    let TextError::Format { part, .. } = error else { return prompt::refuse_text(error, "tools") };
    let mut body = ErrorBody::invalid_request(error.to_string());
    body.param = Some(match part {
        FormatPart::Answer => field.to_owned(),
        FormatPart::Tools => "tools".to_owned(),
    });
    body
}

pub(super) fn refuse_not_taken(served: &Served, why: NotTaken) -> ErrorBody {
    match why {
        NotTaken::Full => ErrorBody::overloaded("too many requests are waiting already", 2),
        // A model that left in the meantime says how it stands now.
        NotTaken::Closed => unavailable(served),
    }
}

/// `prompt_field` holds the prompt; `form` asks for a form of the answer, where a field does.
pub(super) fn refuse_ending(prompt_field: &str, form: Option<&str>, ending: Ending) -> ErrorBody {
    match ending {
        Ending::Refused(Refusal::TooLong { prompt, max_tokens, context }) => {
            ErrorBody::context_length_exceeded(prompt_field, context, prompt, max_tokens)
        }
        Ending::Refused(Refusal::QueueFull { waiting }) => {
            ErrorBody::overloaded(format!("{waiting} requests are waiting already"), 2)
        }
        Ending::Refused(Refusal::Invalid(message)) => ErrorBody::invalid_request(message),
        Ending::Refused(Refusal::Grammar(reason)) => {
            let part = form.map_or(FormatPart::Tools, |_| FormatPart::Answer);
            let error = TextError::Format { part, path: "the form".into(), reason };
            refuse_form(form.unwrap_or_default(), &error)
        }
        Ending::Failed(failure) => ErrorBody::from_failure(&failure),
        Ending::Done(_) => ErrorBody::internal("the answer ended before it began"),
    }
}

fn token_request(
    dialect: Dialect,
    request: &GenerateRequest,
    prepared: &Prepared,
    model: &TextModel,
    info: &EngineInfo,
) -> Result<TokenRequest, ErrorBody> {
    let prompt = u32::try_from(prepared.tokens.len()).unwrap_or(u32::MAX);
    let (asked, context) = (request.max_tokens, info.context);
    let max_tokens = max_tokens(prompt, asked, context, request.fit_context).map_err(|asked| {
        ErrorBody::context_length_exceeded(dialect.prompt_field(), context, prompt, asked)
    })?;
    let sampling = sampling(&request.sampling, &model.defaults);
    if let Some((token, _)) = sampling.logit_bias.iter().find(|(id, _)| *id >= info.vocab_size) {
        let size = info.vocab_size;
        let message = format!("logit_bias names token {token}, the vocabulary has {size}");
        let mut body = ErrorBody::invalid_request(message);
        body.param = Some("logit_bias".into());
        return Err(body);
    }
    let stop_tokens = if request.ignore_eos { Vec::new() } else { model.stop_tokens.clone() };
    Ok(TokenRequest {
        // Set when it is submitted.
        id: 0,
        prompt: prepared.tokens.clone(),
        answered: Vec::new(),
        sampling,
        max_tokens,
        min_tokens: request.min_tokens.min(max_tokens),
        stop_tokens,
        boundaries: prepared.boundaries.clone(),
        // Set once it is known who asks.
        isolation: 0,
        top_logprobs: request.top_logprobs,
        grammar: None,
        part_limit: model.thought_limit(request, prepared, max_tokens).map(part_limit),
        pooling: None,
    })
}

fn part_limit(limit: ThoughtLimit) -> PartLimit {
    let ThoughtLimit { open, close, most, ending } = limit;
    PartLimit { open, close, most, ending }
}

/// What an answer may have at most, or, as an error, what was asked for and does not fit.
fn max_tokens(prompt: u32, asked: Option<u32>, context: u32, fit: bool) -> Result<u32, u32> {
    let left = context.saturating_sub(prompt);
    match asked {
        _ if left == 0 => Err(asked.unwrap_or(0)),
        Some(asked) if asked > left && !fit => Err(asked),
        Some(asked) => Ok(asked.min(left)),
        None => Ok(left.min(DEFAULT_MAX_TOKENS)),
    }
}

/// Request, then model, then fallback (requirement 30).
fn sampling(asked: &SamplingParams, model: &Defaults) -> Sampling {
    let seed = || uuid::Uuid::new_v4().as_u64_pair().0;
    Sampling {
        temperature: asked.temperature.or(model.temperature).unwrap_or(FALLBACK_TEMPERATURE),
        top_p: asked.top_p.or(model.top_p).unwrap_or(FALLBACK_TOP_P),
        top_k: asked.top_k.or(model.top_k).unwrap_or(0),
        min_p: asked.min_p.or(model.min_p).unwrap_or(0.0),
        repetition_penalty: asked.repetition_penalty.or(model.repetition_penalty).unwrap_or(1.0),
        presence_penalty: asked.presence_penalty.unwrap_or(0.0),
        frequency_penalty: asked.frequency_penalty.unwrap_or(0.0),
        seed: asked.seed.unwrap_or_else(seed),
        logit_bias: asked.logit_bias.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_takes_the_first_word_that_is_said() {
        // Requirement 30.
        let model = Defaults { temperature: Some(0.3), top_k: Some(20), ..Defaults::default() };
        let asked =
            SamplingParams { temperature: Some(1.1), seed: Some(7), ..SamplingParams::default() };
        let got = sampling(&asked, &model);
        assert_eq!((got.temperature, got.top_k, got.seed), (1.1, 20, 7));
        let got = sampling(&SamplingParams::default(), &model);
        assert_eq!((got.temperature, got.top_p), (0.3, FALLBACK_TOP_P));
        let got = sampling(&SamplingParams::default(), &Defaults::default());
        assert_eq!(got.temperature, 0.7);
        let other = sampling(&SamplingParams::default(), &Defaults::default());
        assert_ne!(got.seed, other.seed, "an unset seed must be a new one each time");
    }

    #[test]
    fn the_output_cap_fits_the_context() {
        // Requirement 25.
        assert_eq!(max_tokens(10, None, 100, false).unwrap(), 90);
        assert_eq!(max_tokens(10, None, 100_000, false).unwrap(), 8192);
        assert_eq!(max_tokens(10, Some(90), 100, false).unwrap(), 90);
        assert_eq!(max_tokens(10, Some(91), 100, false), Err(91));
        assert_eq!(max_tokens(100, None, 100, false), Err(0));
        // Agents of some dialects ask for a fixed large number.
        assert_eq!(max_tokens(10, Some(32_000), 100, true).unwrap(), 90);
        assert_eq!(max_tokens(100, Some(1), 100, true), Err(1));
    }
}
