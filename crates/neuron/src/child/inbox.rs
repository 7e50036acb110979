//! What the daemon has said and the engine has not taken in yet.
//!
//! The engine looks between two steps, and a step may hang. A request that is given up meanwhile
//! leaves with its abort, so that no more waits here than there are live requests, whose number the
//! daemon bounds.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::link::ToChild;

/// Filled by the reader of the link, emptied by the engine's thread.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    messages: Mutex<VecDeque<ToChild>>,
    filled: Condvar,
}

impl Inbox {
    /// Adds a message, or takes out the request that it aborts.
    pub(super) fn put(&self, message: ToChild) {
        let mut messages = self.messages();
        if let ToChild::Abort(id) = &message {
            let of = |it: &ToChild| matches!(it, ToChild::Submit(request) if request.id == *id);
            if let Some(at) = messages.iter().position(of) {
                messages.remove(at);
                return;
            }
        }
        messages.push_back(message);
        self.filled.notify_one();
    }

    /// The next message, if there is one.
    pub(super) fn take(&self) -> Option<ToChild> {
        self.messages().pop_front()
    }

    /// The next message, whenever it comes.
    pub(super) fn wait(&self) -> ToChild {
        let mut messages = self.messages();
        loop {
            match messages.pop_front() {
                Some(message) => return message,
                None => {
                    let filled = self.filled.wait(messages);
                    messages = filled.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn messages(&self) -> MutexGuard<'_, VecDeque<ToChild>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use engine::TokenRequest;

    use super::*;

    fn submit(id: u64) -> ToChild {
        ToChild::Submit(TokenRequest::new(id, vec![1], 4))
    }

    #[test]
    fn requests_that_come_and_go_while_a_step_hangs_leave_nothing_behind() {
        let inbox = Inbox::default();
        inbox.put(submit(1));
        assert_eq!(inbox.wait(), submit(1));
        for id in 2..1000 {
            inbox.put(submit(id));
            inbox.put(ToChild::Abort(id));
        }
        inbox.put(submit(1000));
        // The engine has this one, and has to hear of its end.
        inbox.put(ToChild::Abort(1));
        let rest: Vec<_> = std::iter::from_fn(|| inbox.take()).collect();
        assert_eq!(rest, [submit(1000), ToChild::Abort(1)]);
    }

    #[test]
    fn whoever_waits_is_woken() {
        let inbox = Inbox::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| inbox.wait());
            inbox.put(ToChild::Abort(7));
            assert_eq!(waiting.join().unwrap(), ToChild::Abort(7));
        });
    }
}
