//! The time since an upstream was last heard: after a moment of it the node is looked at, after a
//! long one the stream is given up. The timer is moved only when it fires, so a frame costs one
//! reading of the clock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// Why an upstream is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// It was silent for as long as a stream may be.
    TooLong,
    /// Its node shows no life.
    Dead,
}

type Look = Pin<Box<dyn Future<Output = bool> + Send>>;

/// See the module.
pub(crate) struct Silence {
    limit: Duration,
    /// The node is looked at after so much of it, again and again.
    moment: Duration,
    heard: Instant,
    looked: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    look: Option<Look>,
}

impl Silence {
    pub(crate) fn new(limit: Duration, moment: Duration) -> Silence {
        let now = Instant::now();
        Silence { limit, moment, heard: now, looked: now, sleep: None, look: None }
    }

    /// Something was heard.
    pub(crate) fn broken(&mut self) {
        self.heard = Instant::now();
        self.look = None;
    }

    /// Ready when the upstream is to be given up; `look` begins a look at its node.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, look: impl Fn() -> Look) -> Poll<Quiet> {
        loop {
            if let Some(looking) = &mut self.look {
                let is_alive = ready!(looking.as_mut().poll(cx));
                self.look = None;
                self.looked = Instant::now();
                if !is_alive {
                    return Poll::Ready(Quiet::Dead);
                }
            }
            let next_look = self.heard.max(self.looked) + self.moment;
            let end = self.heard + self.limit;
            let deadline = next_look.min(end);
            let sleep = match &mut self.sleep {
                Some(sleep) => sleep,
                none => none.insert(Box::pin(tokio::time::sleep_until(deadline.into()))),
            };
            ready!(sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= end {
                return Poll::Ready(Quiet::TooLong);
            }
            if now >= next_look {
                self.look = Some(look());
            }
            sleep.as_mut().reset(deadline.max(now + Duration::from_millis(1)).into());
        }
    }
}
