//! The one log line of an inference request, written when it ends, however it ends.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use dialog::{CacheMiss, FailureKind, FinishReason, Timings, Usage};
use text::Turn;
use traces::Span;

use crate::models::live::Times;
use crate::models::served::Served;

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Completely.
    Finished(FinishReason),
    /// Refused by the engine before it began.
    Refused,
    /// With an error.
    Failed(FailureKind),
}

/// A request from its admission to its end. Dropped without an outcome, its client has left.
pub(crate) struct Story {
    /// The request's id.
    pub(crate) request_id: Arc<str>,
    /// Its model.
    pub(crate) served: Arc<Served>,
    /// The language of its caller.
    pub(crate) dialect: &'static str,
    /// Whether it streams.
    pub(crate) stream: bool,
    /// When it came.
    pub(crate) arrived: Instant,
    /// What it took so far.
    pub(crate) usage: Usage,
    /// Its milestones so far.
    pub(crate) times: Times,
    /// Where the messages of its prompt begin.
    pub(crate) turns: Vec<Turn>,
    /// Set at its end.
    pub(crate) outcome: Option<Outcome>,
    /// Told to a collector, where there is one.
    pub(crate) span: Option<Span>,
}

impl Story {
    /// Where the time went for an answer with these milestones (requirement 114).
    pub(crate) fn timings(&self, times: &Times) -> Timings {
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from).as_secs_f64() * 1e3,
            _ => 0.0,
        };
        Timings {
            queue_ms: between(Some(self.arrived), times.started),
            prompt_ms: between(times.started, times.first_token),
            predicted_ms: between(times.first_token, times.last_token),
            cache_miss: self.cache_miss(times),
        }
    }

    fn cache_miss(&self, times: &Times) -> Option<CacheMiss> {
        let turn = text::turn_at(&self.turns, times.diverged_at?)?;
        Some(CacheMiss { message: turn.message, role: turn.role })
    }
}

impl Story {
    /// The parts of the request, at the times that the engine tells.
    fn trace(&mut self, reason: &str) {
        let Some(mut span) = self.span.take() else { return };
        let times = &self.times;
        for (name, begin, end) in [
            ("queue", Some(self.arrived), times.started),
            ("prompt", times.started, times.first_token),
            ("decode", times.first_token, times.last_token),
        ] {
            if let (Some(begin), Some(end)) = (begin, end) {
                span.part(name, wall(begin), wall(end));
            }
        }
        span.text("request.id", &self.request_id);
        span.text("gen_ai.request.model", &self.served.id);
        span.text("gen_ai.operation.name", self.dialect);
        span.text("gen_ai.response.finish_reason", reason);
        span.count("gen_ai.usage.input_tokens", self.usage.prompt_tokens.into());
        span.count("gen_ai.usage.output_tokens", self.usage.completion_tokens.into());
        span.count("neuron.cached_tokens", self.usage.cached_tokens.into());
        if !matches!(self.outcome, Some(Outcome::Finished(_))) {
            span.fail(reason);
        }
    }
}

/// An instant by the wall clock.
fn wall(at: Instant) -> SystemTime {
    SystemTime::now().checked_sub(at.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Drop for Story {
    /// Requirement 94.
    fn drop(&mut self) {
        {
            let mut view = self.served.view();
            let counts = &mut view.requests;
            let count = match self.outcome {
                Some(Outcome::Finished(_)) => &mut counts.completed,
                Some(Outcome::Refused) => &mut counts.refused,
                Some(Outcome::Failed(_)) => &mut counts.failed,
                None => &mut counts.cancelled,
            };
            *count += 1;
        }
        let reason = match self.outcome {
            Some(Outcome::Finished(reason)) => format!("{reason:?}"),
            Some(Outcome::Refused) => "Refused".to_owned(),
            Some(Outcome::Failed(kind)) => format!("{kind:?}"),
            None => "ClientGone".to_owned(),
        };
        self.trace(&reason);
        let timings = self.timings(&self.times);
        tracing::info!(
            request_id = &*self.request_id,
            model = self.served.id,
            dialect = self.dialect,
            stream = self.stream,
            reason,
            client_gone = self.outcome.is_none(),
            prompt_tokens = self.usage.prompt_tokens,
            completion_tokens = self.usage.completion_tokens,
            cached_tokens = self.usage.cached_tokens,
            cache_miss = timings.cache_miss.map(|miss| miss.message),
            reasoning_tokens = self.usage.reasoning_tokens,
            queue_ms = timings.queue_ms.round(),
            prompt_ms = timings.prompt_ms.round(),
            predicted_ms = timings.predicted_ms.round(),
            total_ms = self.arrived.elapsed().as_millis() as u64,
            "request ended"
        );
    }
}
