//! Where ranks wait for one another, unless one of them has ended in a panic.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// See the module.
pub(super) struct Barrier {
    ranks: usize,
    meeting: Mutex<Meeting>,
    changed: Condvar,
}

#[derive(Default)]
struct Meeting {
    arrived: usize,
    /// Counts meetings.
    round: u64,
    /// A rank is gone and will not arrive.
    broken: bool,
}

impl Barrier {
    pub(super) fn new(ranks: usize) -> Self {
        Self { ranks, meeting: Mutex::default(), changed: Condvar::new() }
    }

    /// Returns once all ranks are here.
    ///
    /// # Panics
    /// When one of them has given up.
    pub(super) fn wait(&self) {
        let mut meeting = self.meeting();
        meeting.arrived += 1;
        let round = meeting.round;
        if meeting.arrived == self.ranks {
            (meeting.arrived, meeting.round) = (0, round + 1);
            self.changed.notify_all();
            return;
        }
        while meeting.round == round && !meeting.broken {
            meeting = self.changed.wait(meeting).unwrap_or_else(PoisonError::into_inner);
        }
        let met = meeting.round != round;
        drop(meeting);
        assert!(met, "a rank of the group has panicked");
    }

    /// The calling rank will not arrive again.
    pub(super) fn give_up(&self) {
        self.meeting().broken = true;
        self.changed.notify_all();
    }

    fn meeting(&self) -> MutexGuard<'_, Meeting> {
        // Nothing panics while it is held.
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
