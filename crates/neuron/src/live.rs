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
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, OwnedPermit};

use crate::link::ToChild;

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
struct Queue {
    news: Mutex<News>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct News {
    accepted: bool,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    embedding: Option<Vec<f32>>,
    ending: Option<Ending>,
    times: Times,
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

/// What [`Ticket::next`] brings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Batch {
    /// Everything since the last call, in order.
    pub(crate) tokens: Vec<u32>,
    /// One for each token, or none where they are not asked for.
    pub(crate) logprobs: Vec<TokenLogprobs>,
    /// Set once, with the last tokens.
    pub(crate) ending: Option<Ending>,
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
        Ok(Ticket { id, queue, abort: Some(abort), live: Arc::clone(self) })
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

    fn take(&self, id: RequestId) -> Option<Arc<Queue>> {
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
    fn news(&self) -> MutexGuard<'_, News> {
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

/// A live request. Dropping it while the engine still works on it aborts it, so that a client
/// that leaves at any point gives back its blocks and its place.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: RequestId,
    queue: Arc<Queue>,
    abort: Option<OwnedPermit<ToChild>>,
    live: Arc<Live>,
}

impl Ticket {
    /// Returns once no check of the engine can refuse the request any more.
    pub(crate) async fn accepted(&self) -> Result<(), Ending> {
        loop {
            {
                let news = self.queue.news();
                match &news.ending {
                    // It was taken and is already over; its tokens tell the rest.
                    Some(Ending::Done(_)) => return Ok(()),
                    _ if news.accepted => return Ok(()),
                    Some(ending) => return Err(ending.clone()),
                    None => {}
                }
            }
            self.queue.wake.notified().await;
        }
    }

    /// The next tokens, the ending, or both; after the ending it must not be called again.
    ///
    /// Cancel-safe: what a dropped call would have brought, the next call brings.
    pub(crate) async fn next(&self) -> Batch {
        loop {
            {
                let mut news = self.queue.news();
                if !news.tokens.is_empty() || news.ending.is_some() {
                    let tokens = std::mem::take(&mut news.tokens);
                    let logprobs = std::mem::take(&mut news.logprobs);
                    return Batch { tokens, logprobs, ending: news.ending.clone() };
                }
            }
            self.queue.wake.notified().await;
        }
    }

    /// The embedding of the prompt, once the request is over.
    pub(crate) async fn embedding(&self) -> Result<Vec<f32>, Ending> {
        loop {
            {
                let mut news = self.queue.news();
                if let Some(ending) = &news.ending {
                    let ending = ending.clone();
                    return news.embedding.take().ok_or(ending);
                }
            }
            self.queue.wake.notified().await;
        }
    }

    /// See [`Times`].
    pub(crate) fn times(&self) -> Times {
        self.queue.news().times
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.live.take(self.id).is_some()
            && let Some(place) = self.abort.take()
        {
            place.send(ToChild::Abort(self.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Started;

    use super::*;

    fn request() -> TokenRequest {
        TokenRequest::new(0, vec![1], 4)
    }

    fn report(id: RequestId, tokens: &[u32], end: Option<End>) -> StepReport {
        let updates = vec![TokenUpdate { id, tokens: tokens.to_vec(), logprobs: vec![], end }];
        StepReport {
            started: vec![Started { id, cached_tokens: 3, diverged_at: Some(5) }],
            updates,
            ..StepReport::default()
        }
    }

    fn open() -> (Arc<Live>, mpsc::Receiver<ToChild>) {
        let live = Arc::new(Live::default());
        let (outbox, inbox) = mpsc::channel(6);
        live.open(outbox);
        (live, inbox)
    }

    #[tokio::test]
    async fn tokens_wait_for_their_reader_and_end_once() {
        let (live, _inbox) = open();
        let ticket = live.submit(request()).unwrap();
        live.accepted(ticket.id);
        assert_eq!(ticket.accepted().await, Ok(()));
        live.apply(&report(ticket.id, &[5], None));
        live.apply(&report(ticket.id, &[6], Some(End::Length)));
        let batch = ticket.next().await;
        assert_eq!(batch.tokens, [5, 6]);
        assert_eq!(batch.ending, Some(Ending::Done(End::Length)));
        assert_eq!(live.count(), 0);
    }

    #[tokio::test]
    async fn a_dropped_ticket_aborts_unless_it_ended() {
        // Requirements 73 and 109.
        let (live, mut inbox) = open();
        let (left, done) = (live.submit(request()).unwrap(), live.submit(request()).unwrap());
        let left_id = left.id;
        live.apply(&report(done.id, &[5], Some(End::Stop)));
        drop((left, done));
        let mut aborted = Vec::new();
        while let Ok(message) = inbox.try_recv() {
            if let ToChild::Abort(id) = message {
                aborted.push(id);
            }
        }
        assert_eq!(aborted, [left_id]);
    }

    #[tokio::test]
    async fn a_dead_engine_fails_everyone_and_takes_nobody() {
        let (live, _inbox) = open();
        let (early, late) = (live.submit(request()).unwrap(), live.submit(request()).unwrap());
        live.accepted(late.id);
        live.fail_all(FailureKind::EngineFailed, "gone");
        let failed =
            Ending::Failed(Failure { kind: FailureKind::EngineFailed, message: "gone".into() });
        assert_eq!(early.accepted().await, Err(failed.clone()));
        assert_eq!(late.accepted().await, Ok(()));
        assert_eq!(late.next().await.ending, Some(failed));
        assert_eq!(live.submit(request()).err(), Some(NotTaken::Closed));
    }

    #[tokio::test]
    async fn a_drain_is_over_when_the_last_request_is() {
        let (live, _inbox) = open();
        let ticket = live.submit(request()).unwrap();
        live.close();
        assert!(live.submit(request()).is_err());
        let waited = tokio::time::timeout(Duration::from_millis(20), live.idle()).await;
        assert!(waited.is_err(), "idle with a request inside");
        live.apply(&report(ticket.id, &[5], Some(End::Stop)));
        live.idle().await;
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn every_request_has_a_place_for_its_abort() {
        let (live, mut inbox) = open();
        let tickets: Vec<_> = (0..3).map(|_| live.submit(request()).unwrap()).collect();
        assert_eq!(live.submit(request()).err(), Some(NotTaken::Full));
        drop(tickets);
        let mut frames = Vec::new();
        while let Ok(frame) = inbox.try_recv() {
            frames.push(frame);
        }
        assert_eq!(frames.len(), 6);
        assert_eq!(live.count(), 0);
        assert!(live.submit(request()).is_ok());
    }

    #[test]
    fn an_engine_without_work_does_not_stall() {
        let (live, _inbox) = open();
        let ticket = live.submit(request()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert!(live.stalled_for() >= Duration::from_millis(5));
        drop(ticket);
        assert_eq!(live.stalled_for(), Duration::ZERO);
    }
}
