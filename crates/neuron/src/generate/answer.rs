//! The events of one request's answers, whoever listens.

use std::collections::VecDeque;
use std::sync::Arc;

use dialog::{Event, Failure, FailureKind, FinishReason, Usage};
use engine::{End, TokenRequest};
use futures_util::future::select_all;
use text::{Scores, StreamOptions, TextModel, TextStream};

use crate::models::live::{Ending, NotTaken, Times};
use crate::models::ticket::{Batch, Ticket};
use crate::story::{Outcome, Story};

/// Something that happens to one of the answers.
pub(super) struct Happening {
    /// Its index.
    pub(super) choice: u32,
    /// The list may be empty.
    pub(super) events: Vec<Event>,
    /// The tokens behind it.
    pub(super) tokens: Vec<u32>,
}

/// An accepted request on its way to its last event. Dropped before it, the work is aborted.
pub(super) struct Answer {
    choices: Vec<Choice>,
    /// Answers that begin when the first has read the prompt: they find it in the prefix cache.
    rest: Option<Rest>,
    story: Story,
}

/// What further answers to the same prompt are begun with.
pub(super) struct Rest {
    /// How many.
    pub(super) count: u32,
    /// As the first answer's, whose seed theirs differ from.
    pub(super) request: TokenRequest,
    /// See [`TextStream::new`].
    pub(super) model: Arc<TextModel>,
    /// As the first answer's.
    pub(super) options: StreamOptions,
}

/// One of the answers.
struct Choice {
    index: u32,
    /// `None` once no more tokens are wanted.
    ticket: Option<Ticket>,
    /// What happened on another node; it comes before the engine's.
    earlier: VecDeque<Batch>,
    text: Option<TextStream>,
    begun: bool,
    usage: Usage,
    times: Times,
}

impl Choice {
    fn new(index: u32, ticket: Option<Ticket>, text: TextStream, prompt_tokens: u32) -> Self {
        let usage = Usage { prompt_tokens, ..Usage::default() };
        let (text, times, earlier) = (Some(text), Times::default(), VecDeque::new());
        Self { index, ticket, earlier, text, begun: false, usage, times }
    }

    async fn next(&mut self) -> Batch {
        if let Some(batch) = self.earlier.pop_front() {
            return batch;
        }
        match &self.ticket {
            Some(ticket) => ticket.next().await,
            None => std::future::pending().await,
        }
    }
}

impl Answer {
    pub(super) fn new(ticket: Ticket, text: TextStream, rest: Option<Rest>, story: Story) -> Self {
        let first = Choice::new(0, Some(ticket), text, story.usage.prompt_tokens);
        Self { choices: vec![first], rest, story }
    }

    /// An answer that another node began: these batches come first. Without a ticket they are all,
    /// and the last one holds the end.
    pub(super) fn continued(
        ticket: Option<Ticket>,
        text: TextStream,
        earlier: VecDeque<Batch>,
        story: Story,
    ) -> Self {
        let first = Choice::new(0, ticket, text, story.usage.prompt_tokens);
        Self { choices: vec![Choice { earlier, ..first }], rest: None, story }
    }

    /// The id under which the model is served.
    pub(super) fn model(&self) -> &str {
        &self.story.served.id
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Usage {
        self.story.usage
    }

    /// What happens next; `None` after the last event.
    ///
    /// Cancel-safe: what a dropped call would have brought, the next call brings.
    pub(super) async fn next(&mut self) -> Option<Happening> {
        if let Some(choice) = self.choices.iter_mut().find(|choice| !choice.begun) {
            choice.begun = true;
            let prompt_tokens = choice.usage.prompt_tokens;
            let events = vec![Event::Started { prompt_tokens }];
            return Some(Happening { choice: choice.index, events, tokens: Vec::new() });
        }
        let live = self.choices.iter_mut().enumerate().filter(|(_, it)| it.text.is_some());
        let nexts: Vec<_> =
            live.map(|(at, choice)| Box::pin(async move { (at, choice.next().await) })).collect();
        if nexts.is_empty() {
            return None;
        }
        let ((at, batch), ..) = select_all(nexts).await;
        let tokens = batch.tokens.clone();
        let mut events = self.take(at, batch);
        let first = &self.choices[0];
        if (first.usage.completion_tokens > 0 || first.text.is_none())
            && let Some(rest) = self.rest.take()
            && let Err(error) = self.begin(&rest)
        {
            let message = match error {
                NotTaken::Full => "too many requests are waiting already",
                NotTaken::Closed => "the model does not answer any more",
            };
            self.fail(failure(FailureKind::Overloaded, message), &mut events);
        }
        Some(Happening { choice: self.choices[at].index, events, tokens })
    }

    fn begin(&mut self, rest: &Rest) -> Result<(), NotTaken> {
        let Rest { count, request, model, options } = rest;
        for index in 1..=*count {
            let seed = seed(request.sampling.seed, index);
            let sampling = engine::Sampling { seed, ..request.sampling.clone() };
            let request = TokenRequest { sampling, ..request.clone() };
            let ticket = self.story.served.live.submit(request)?;
            let prefix = format!("{}{index}_", options.call_id_prefix);
            let options = StreamOptions { call_id_prefix: prefix, ..options.clone() };
            let text = TextStream::new(Arc::clone(model), options);
            let prompt_tokens = self.choices[0].usage.prompt_tokens;
            self.choices.push(Choice::new(index, Some(ticket), text, prompt_tokens));
        }
        Ok(())
    }

    fn take(&mut self, at: usize, batch: Batch) -> Vec<Event> {
        let choice = &mut self.choices[at];
        let Some(text) = &mut choice.text else { return Vec::new() };
        choice.usage.completion_tokens += batch.tokens.len() as u32;
        choice.times = choice.ticket.as_ref().map(Ticket::times).unwrap_or_default();
        choice.usage.cached_tokens = choice.times.cached_tokens;
        let scores = batch.logprobs.into_iter();
        let scores: Vec<Scores> =
            scores.map(|it| Scores { chosen: it.chosen, top: it.top }).collect();
        let mut events = text.push_scored(&batch.tokens, &scores);
        let stopped = text.stopped();
        match &batch.ending {
            _ if stopped => self.finish(at, FinishReason::Stop, &mut events),
            Some(Ending::Done(End::Stop)) => self.finish(at, FinishReason::Stop, &mut events),
            Some(Ending::Done(End::Length)) => self.finish(at, FinishReason::Length, &mut events),
            Some(Ending::Done(End::NotFinite)) => {
                let message = "the model's numbers broke while it answered this request";
                self.fail(failure(FailureKind::Numerical, message), &mut events);
            }
            Some(Ending::Done(End::Grammar)) => {
                let message = "the answer became too involved to be kept in its form";
                self.fail(failure(FailureKind::FormatLost, message), &mut events);
            }
            Some(Ending::Failed(failure)) => self.fail(failure.clone(), &mut events),
            Some(Ending::Refused(refusal)) => {
                let failure = failure(FailureKind::Overloaded, refusal.to_string());
                self.fail(failure, &mut events);
            }
            None => {}
        }
        self.tell_story();
        events
    }

    /// Ends an answer; after a stop text the engine still works, which dropping the ticket ends.
    fn finish(&mut self, at: usize, reason: FinishReason, events: &mut Vec<Event>) {
        let choice = &mut self.choices[at];
        choice.ticket = None;
        let Some(text) = choice.text.take() else { return };
        let (rest, reason, reasoning_tokens) = text.finish(reason);
        events.extend(rest);
        choice.usage.reasoning_tokens = reasoning_tokens;
        let (usage, timings) = (choice.usage, self.story.timings(&choice.times));
        events.push(Event::Finished { reason, usage, timings });
        if self.rest.is_none() && self.choices.iter().all(|choice| choice.text.is_none()) {
            self.story.outcome = Some(Outcome::Finished(reason));
        }
    }

    /// The failure of one is the failure of all: a caller could not tell the others' end.
    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        for choice in &mut self.choices {
            choice.ticket = None;
            choice.text = None;
        }
        self.rest = None;
        self.story.outcome = Some(Outcome::Failed(failure.kind));
        events.push(Event::Failed(failure));
    }

    /// The prompt counts once, and the first answer's times stand for all.
    fn tell_story(&mut self) {
        let first = &self.choices[0];
        self.story.times = first.times;
        let sum = |count: fn(&Usage) -> u32| self.choices.iter().map(|it| count(&it.usage)).sum();
        self.story.usage = Usage {
            completion_tokens: sum(|usage| usage.completion_tokens),
            reasoning_tokens: sum(|usage| usage.reasoning_tokens),
            ..first.usage
        };
    }
}

fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// Another seed for another answer, and the request's own for the first.
fn seed(seed: u64, index: u32) -> u64 {
    // An odd factor keeps the seeds of neighbouring requests apart from those of answers.
    seed.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
