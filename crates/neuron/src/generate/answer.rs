//! The events of one answer, whoever listens.

use dialog::{Event, Failure, FailureKind, FinishReason};
use engine::End;
use text::TextStream;

use crate::live::{Batch, Ending, Ticket};
use crate::story::{Outcome, Story};

/// An accepted request on its way to its last event. Dropped before it, the work is aborted.
pub(super) struct Answer {
    /// `None` once no more tokens are wanted.
    ticket: Option<Ticket>,
    text: Option<TextStream>,
    begun: bool,
    story: Story,
}

impl Answer {
    pub(super) fn new(ticket: Ticket, text: TextStream, story: Story) -> Self {
        Self { ticket: Some(ticket), text: Some(text), begun: false, story }
    }

    /// The id under which the model is served.
    pub(super) fn model(&self) -> &str {
        &self.story.served.id
    }

    /// What happens next; `None` after the last event. The list may be empty.
    ///
    /// Cancel-safe: what a dropped call would have brought, the next call brings.
    pub(super) async fn next(&mut self) -> Option<Vec<Event>> {
        if !self.begun {
            self.begun = true;
            let prompt_tokens = self.story.usage.prompt_tokens;
            return Some(vec![Event::Started { prompt_tokens }]);
        }
        let batch = self.ticket.as_ref()?.next().await;
        Some(self.take(&batch))
    }

    fn take(&mut self, batch: &Batch) -> Vec<Event> {
        let Some(text) = &mut self.text else { return Vec::new() };
        self.story.usage.completion_tokens += batch.tokens.len() as u32;
        self.story.times = self.ticket.as_ref().map(Ticket::times).unwrap_or_default();
        self.story.usage.cached_tokens = self.story.times.cached_tokens;
        let mut events = text.push(&batch.tokens);
        let stopped = text.stopped();
        match &batch.ending {
            _ if stopped => self.finish(FinishReason::Stop, &mut events),
            Some(Ending::Done(End::Stop)) => self.finish(FinishReason::Stop, &mut events),
            Some(Ending::Done(End::Length)) => self.finish(FinishReason::Length, &mut events),
            Some(Ending::Done(End::NotFinite)) => {
                let message = "the model's numbers broke while it answered this request";
                let kind = FailureKind::Numerical;
                self.fail(Failure { kind, message: message.into() }, &mut events);
            }
            Some(Ending::Failed(failure)) => self.fail(failure.clone(), &mut events),
            Some(Ending::Refused(refusal)) => {
                let kind = FailureKind::Overloaded;
                self.fail(Failure { kind, message: refusal.to_string() }, &mut events);
            }
            None => {}
        }
        events
    }

    /// Ends the answer; after a stop text the engine still works, which dropping the ticket ends.
    fn finish(&mut self, reason: FinishReason, events: &mut Vec<Event>) {
        self.ticket = None;
        let Some(text) = self.text.take() else { return };
        let (rest, reason, reasoning_tokens) = text.finish(reason);
        events.extend(rest);
        self.story.usage.reasoning_tokens = reasoning_tokens;
        self.story.outcome = Some(Outcome::Finished(reason));
        let (usage, timings) = (self.story.usage, self.story.timings());
        events.push(Event::Finished { reason, usage, timings });
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        self.ticket = None;
        self.text = None;
        self.story.outcome = Some(Outcome::Failed(failure.kind));
        events.push(Event::Failed(failure));
    }
}
