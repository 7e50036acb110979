//! The life of one model on a node, as a pure function: events in, commands out.
//!
//! ```text
//! Absent ─Load─► Starting ─Ready─► Ready ─Unload─► Draining ─Idle─► Stopping ─Exited─► Absent
//!                  │  ▲              │
//!                  │  └──Alarm── Backoff ◄─Exited (and from Starting)
//!                  └─LoadFailed, or too many quick deaths─► Failed
//! ```
//!
//! Time is a number of milliseconds that the caller passes; nothing here waits.

use std::time::Duration;

use control::ModelStatus;

use crate::child::link::{LoadCode, LoadFailure};

/// How a dead engine is brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Wait before the first restart; doubles with every quick death.
    pub first_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
    /// A child that answered for this long was healthy: the count of quick deaths starts anew.
    pub healthy_after: Duration,
    /// This many quick deaths in a row, and the model is given up.
    pub max_quick_deaths: u32,
    /// How long a child may take to end after it was told to.
    pub stop_grace: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            first_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(30),
            healthy_after: Duration::from_secs(60),
            max_quick_deaths: 5,
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// Where the model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No child, and none wanted.
    Absent,
    /// A child loads.
    Starting {
        /// Whether an earlier child died.
        again: bool,
    },
    /// The child answers.
    Ready {
        /// When it began to.
        since_ms: u64,
    },
    /// A child died; the next one starts at the alarm.
    Backoff,
    /// No new requests; those that run go on until they end or the alarm.
    Draining,
    /// The child was told to end.
    Stopping,
    /// Given up until somebody loads it again.
    Failed(LoadFailure),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants the model and waits for [`Command::AnswerLoads`].
    Load,
    /// Somebody wants it gone and waits for [`Command::AnswerUnloads`].
    Unload {
        /// How long running requests may go on.
        drain: Duration,
    },
    /// The child loaded the model.
    Ready,
    /// The child cannot load it, and no child could.
    LoadFailed(LoadFailure),
    /// The child's process is gone.
    Exited {
        /// Its status and its last words.
        reason: String,
    },
    /// The last request ended while no new one is taken.
    Idle,
    /// The alarm of [`Command::SetAlarm`].
    Alarm,
}

/// What the supervisor has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start a child and tell it what to load.
    Spawn,
    /// Let requests in.
    Open,
    /// Let no more in, and say [`Event::Idle`] once none runs.
    CloseForDrain,
    /// Let no more in, and end those that run: the model is being unloaded.
    FailDrained,
    /// Let no more in, and end those that run: the engine is gone.
    FailBroken,
    /// Tell the child to end.
    Stop,
    /// Kill the child.
    Kill,
    /// Say [`Event::Alarm`] after this long; replaces an alarm that is set.
    SetAlarm(Duration),
    /// Forget the alarm.
    ClearAlarm,
    /// Answer everybody who waits for the load.
    AnswerLoads(Result<(), Refused>),
    /// Answer everybody who waits for the unload.
    AnswerUnloads,
}

/// Why a load was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be.
    #[error(transparent)]
    Failed(#[from] LoadFailure),
    /// It is being unloaded; later it can be.
    #[error("the model is being unloaded")]
    Draining,
    /// Somebody unloaded it before the load was done.
    #[error("the model was unloaded while it loaded")]
    Undone,
}

/// One model's life.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    policy: RestartPolicy,
    state: State,
    quick_deaths: u32,
    restarts: u32,
}

impl Lifecycle {
    /// A model that is absent.
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, state: State::Absent, quick_deaths: 0, restarts: 0 }
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Times that a child was started after one had died.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// As the control plane names it.
    pub fn status(&self) -> ModelStatus {
        match self.state {
            State::Absent => ModelStatus::Absent,
            State::Starting { again: false } => ModelStatus::Loading,
            State::Starting { again: true } | State::Backoff => ModelStatus::Restarting,
            State::Ready { .. } => ModelStatus::Ready,
            State::Draining | State::Stopping => ModelStatus::Draining,
            State::Failed(_) => ModelStatus::Failed,
        }
    }

    /// Takes an event in, and says what to do about it. Events that come too late do nothing.
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Command> {
        match event {
            Event::Load => self.load(),
            Event::Unload { drain } => self.unload(drain),
            Event::Ready => self.ready(now_ms),
            Event::LoadFailed(failure) => self.load_failed(failure),
            Event::Exited { reason } => self.exited(&reason, now_ms),
            Event::Idle if self.state == State::Draining => self.stop(),
            Event::Idle => vec![],
            Event::Alarm => self.alarm(),
        }
    }

    fn load(&mut self) -> Vec<Command> {
        match self.state {
            State::Absent | State::Failed(_) => {
                self.quick_deaths = 0;
                self.state = State::Starting { again: false };
                vec![Command::Spawn]
            }
            State::Starting { .. } | State::Backoff => vec![],
            State::Ready { .. } => vec![Command::AnswerLoads(Ok(()))],
            State::Draining | State::Stopping => {
                vec![Command::AnswerLoads(Err(Refused::Draining))]
            }
        }
    }

    fn unload(&mut self, drain: Duration) -> Vec<Command> {
        match self.state {
            State::Ready { .. } => {
                self.state = State::Draining;
                // The alarm comes first: a model without requests says Idle at once.
                vec![Command::SetAlarm(drain), Command::CloseForDrain]
            }
            State::Starting { .. } => {
                let mut commands = vec![Command::AnswerLoads(Err(Refused::Undone))];
                commands.extend(self.stop());
                commands
            }
            State::Backoff => {
                self.state = State::Absent;
                vec![
                    Command::ClearAlarm,
                    Command::AnswerLoads(Err(Refused::Undone)),
                    Command::AnswerUnloads,
                ]
            }
            State::Absent | State::Failed(_) => {
                self.state = State::Absent;
                vec![Command::AnswerUnloads]
            }
            // The shorter of the two drains wins.
            State::Draining => vec![Command::SetAlarm(drain)],
            State::Stopping => vec![],
        }
    }

    fn stop(&mut self) -> Vec<Command> {
        self.state = State::Stopping;
        vec![Command::FailDrained, Command::Stop, Command::SetAlarm(self.policy.stop_grace)]
    }

    fn ready(&mut self, now_ms: u64) -> Vec<Command> {
        if !matches!(self.state, State::Starting { .. }) {
            return vec![];
        }
        self.state = State::Ready { since_ms: now_ms };
        vec![Command::Open, Command::AnswerLoads(Ok(()))]
    }

    fn load_failed(&mut self, failure: LoadFailure) -> Vec<Command> {
        if !matches!(self.state, State::Starting { .. }) {
            return vec![];
        }
        let mut commands = self.give_up(failure);
        // It ends by itself; this is for one that does not.
        commands.push(Command::Kill);
        commands
    }

    fn give_up(&mut self, failure: LoadFailure) -> Vec<Command> {
        self.state = State::Failed(failure.clone());
        vec![Command::ClearAlarm, Command::AnswerLoads(Err(failure.into()))]
    }

    fn exited(&mut self, reason: &str, now_ms: u64) -> Vec<Command> {
        let healthy_ms = match self.state {
            State::Ready { since_ms } => now_ms.saturating_sub(since_ms),
            State::Starting { .. } => 0,
            State::Draining | State::Stopping => {
                self.state = State::Absent;
                return vec![Command::FailDrained, Command::ClearAlarm, Command::AnswerUnloads];
            }
            // A child that reported a failed load ends; that was told already.
            State::Failed(_) | State::Absent | State::Backoff => return vec![],
        };
        if u128::from(healthy_ms) >= self.policy.healthy_after.as_millis() {
            self.quick_deaths = 0;
        }
        self.quick_deaths += 1;
        let mut commands = vec![Command::FailBroken];
        if self.quick_deaths >= self.policy.max_quick_deaths {
            let message = format!(
                "the engine died {} times in a row, the last time: {reason}; see the daemon's \
                 log, then load the model again",
                self.quick_deaths
            );
            commands.extend(self.give_up(LoadFailure::new(LoadCode::EngineFailed, message)));
        } else {
            self.state = State::Backoff;
            commands.push(Command::SetAlarm(self.backoff()));
        }
        commands
    }

    fn backoff(&self) -> Duration {
        let doublings = self.quick_deaths.saturating_sub(1).min(16);
        (self.policy.first_backoff * (1 << doublings)).min(self.policy.max_backoff)
    }

    fn alarm(&mut self) -> Vec<Command> {
        match self.state {
            State::Backoff => {
                self.state = State::Starting { again: true };
                self.restarts += 1;
                vec![Command::Spawn]
            }
            State::Draining => self.stop(),
            State::Stopping => vec![Command::Kill],
            State::Absent | State::Starting { .. } | State::Ready { .. } | State::Failed(_) => {
                vec![]
            }
        }
    }
}

#[cfg(test)]
mod tests;
