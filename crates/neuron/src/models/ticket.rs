//! A live request, from the side of whoever asked.

use std::sync::Arc;

use engine::{RequestId, TokenLogprobs};
use tokio::sync::mpsc::OwnedPermit;

use crate::child::link::ToChild;
use crate::models::live::{Ending, Live, Queue, Times};

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
    /// Of a request that stands in `live`, whose news come into `queue`; `abort` is the place that
    /// is kept for its abort.
    pub(super) fn new(
        id: RequestId,
        queue: Arc<Queue>,
        abort: OwnedPermit<ToChild>,
        live: Arc<Live>,
    ) -> Self {
        Self { id, queue, abort: Some(abort), live }
    }

    /// Under which the engine knows it.
    #[cfg(test)]
    pub(super) fn id(&self) -> RequestId {
        self.id
    }

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
