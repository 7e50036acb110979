//! The requests that a model works on: where their tokens wait until somebody reads them.
//!
//! The reader of the engine link puts tokens in and never waits. Each request has a queue of its
//! own, bounded by its own `max_tokens`, so that a slow client holds up nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dialog::{Failure, FailureKind};
use engine::{
    Embedding, End, Refusal, RequestId, StepReport, TokenLogprobs, TokenRequest, TokenUpdate,
};
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::ticket::Ticket;
use crate::child::link::ToChild;

/// Sends to an engine child.
pub(crate) type Outbox = mpsc::Sender<ToChild>;

/// Frames that may wait for a child. Each live request holds one place, for its abort: a
/// destructor sends that and cannot wait.
pub(crate) const OUTBOX_FRAMES: usize = 4096;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The engine is done with it.
    Done(End),
    /// The engine did not take it.
    Refused(Refusal),
    /// It was cut off.
    Failed(Failure),
}

/// All live requests of one model.
#[derive(Debug, Default)]
pub(crate) struct Live {
    table: Mutex<Table>,
    idle: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// Where new requests go; `None` while none is taken.
    outbox: Option<Outbox>,
    requests: HashMap<RequestId, Arc<Queue>>,
    last_id: RequestId,
    /// When the engine last showed a sign of life, or was first given something to do.
    quiet_since: Option<Instant>,
}

/// What has come for a request and was not read yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    news: Mutex<News>,
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) accepted: bool,
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Vec<TokenLogprobs>,
    pub(super) embedding: Option<Vec<f32>>,
    pub(super) ending: Option<Ending>,
    pub(super) times: Times,
}

/// When a request passed its milestones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// The first step that worked on it.
    pub(crate) started: Option<Instant>,
    /// Its first token.
    pub(crate) first_token: Option<Instant>,
    /// Its latest token.
    pub(crate) last_token: Option<Instant>,
    /// How much of its prompt the prefix cache supplied in that first step.
    pub(crate) cached_tokens: u32,
    /// Where its prompt parts from the longest cached one.
    pub(crate) diverged_at: Option<u32>,
}

/// Why no request is taken at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The model does not answer now.
    Closed,
    /// It has more requests than it can remember.
    Full,
}

impl Live {
    /// Lets requests in; they go to this child.
    pub(crate) fn open(&self, outbox: Outbox) {
        self.table().outbox = Some(outbox);
    }

    /// Lets no more in. Those inside go on; [`Live::idle`] tells when the last is gone.
    pub(crate) fn close(&self) {
        let mut table = self.table();
        table.outbox = None;
        if table.requests.is_empty() {
            self.idle.notify_one();
        }
    }

    /// Lets no more in and ends those inside.
    pub(crate) fn fail_all(&self, kind: FailureKind, message: &str) {
        let requests = {
            let mut table = self.table();
            table.outbox = None;
            table.quiet_since = None;
            std::mem::take(&mut table.requests)
        };
        for queue in requests.into_values() {
            queue.end(Ending::Failed(Failure { kind, message: message.to_owned() }));
        }
        self.idle.notify_one();
    }

    /// Returns once no request may be left; look with [`Live::count`].
    pub(crate) async fn idle(&self) {
        self.idle.notified().await;
    }

    /// Requests inside.
    pub(crate) fn count(&self) -> usize {
        self.table().requests.len()
    }

    /// How long the engine has had work and shown no sign of life.
    pub(crate) fn stalled_for(&self) -> Duration {
        let table = self.table();
        let since = table.quiet_since.filter(|_| !table.requests.is_empty());
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Hands a request to the engine; its `id` is set here.
    pub(crate) fn submit(self: &Arc<Self>, mut request: TokenRequest) -> Result<Ticket, NotTaken> {
        let mut table = self.table();
        let outbox = table.outbox.clone().ok_or(NotTaken::Closed)?;
        table.last_id += 1;
        let id = table.last_id;
        request.id = id;
        let abort = outbox.clone().try_reserve_owned().map_err(|error| not_taken(&error))?;
        outbox.try_send(ToChild::Submit(request)).map_err(|error| not_taken(&error))?;
        if table.requests.is_empty() {
            table.quiet_since = Some(Instant::now());
        }
        let queue = Arc::new(Queue::default());
        table.requests.insert(id, Arc::clone(&queue));
        drop(table);
        Ok(Ticket::new(id, queue, abort, Arc::clone(self)))
    }

    /// The engine took a request into its line.
    pub(crate) fn accepted(&self, id: RequestId) {
        if let Some(queue) = self.table().requests.get(&id) {
            queue.news().accepted = true;
            queue.wake.notify_one();
        }
    }

    /// The engine did not take a request.
    pub(crate) fn refused(&self, id: RequestId, refusal: Refusal) {
        self.end(id, Ending::Refused(refusal));
    }

    /// Hands out what a step brought.
    pub(crate) fn apply(&self, report: &StepReport) {
        let now = Instant::now();
        let mut table = self.table();
        table.quiet_since = Some(now);
        // Its first step began before it was reported.
        let began = now.checked_sub(Duration::from_micros(report.step_micros)).unwrap_or(now);
        for started in &report.started {
            if let Some(queue) = table.requests.get(&started.id) {
                let mut news = queue.news();
                news.times.started.get_or_insert(began);
                news.times.cached_tokens = started.cached_tokens;
                news.times.diverged_at = started.diverged_at;
            }
        }
        for Embedding { id, values } in &report.embeddings {
            if let Some(queue) = table.requests.get(id) {
                queue.news().embedding = Some(values.clone());
            }
        }
        for update in &report.updates {
            if let Some(queue) = table.requests.get(&update.id) {
                queue.push(update, now);
            }
        }
        drop(table);
        for settled in &report.settled {
            match &settled.refusal {
                None => self.accepted(settled.id),
                Some(refusal) => self.refused(settled.id, refusal.clone()),
            }
        }
        for update in &report.updates {
            if let Some(end) = update.end {
                self.end(update.id, Ending::Done(end));
            }
        }
    }

    fn end(&self, id: RequestId, ending: Ending) {
        if let Some(queue) = self.take(id) {
            queue.end(ending);
        }
    }

    pub(super) fn take(&self, id: RequestId) -> Option<Arc<Queue>> {
        let mut table = self.table();
        let queue = table.requests.remove(&id);
        if table.requests.is_empty() && table.outbox.is_none() {
            self.idle.notify_one();
        }
        queue
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_taken<T>(error: &TrySendError<T>) -> NotTaken {
    match error {
        TrySendError::Full(_) => NotTaken::Full,
        TrySendError::Closed(_) => NotTaken::Closed,
    }
}

impl Queue {
    pub(super) fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, update: &TokenUpdate, now: Instant) {
        if update.tokens.is_empty() {
            return;
        }
        let mut news = self.news();
        news.accepted = true;
        news.tokens.extend_from_slice(&update.tokens);
        news.logprobs.extend_from_slice(&update.logprobs);
        news.times.first_token.get_or_insert(now);
        news.times.last_token = Some(now);
        self.wake.notify_one();
    }

    fn end(&self, ending: Ending) {
        self.news().ending.get_or_insert(ending);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
