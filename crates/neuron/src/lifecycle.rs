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

use crate::link::{LoadCode, LoadFailure};

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
mod tests {
    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        first_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_millis(300),
        healthy_after: Duration::from_secs(60),
        max_quick_deaths: 4,
        stop_grace: Duration::from_secs(5),
    };

    fn exited() -> Event {
        Event::Exited { reason: "signal 9".into() }
    }

    fn unload() -> Event {
        Event::Unload { drain: Duration::from_secs(30) }
    }

    fn failure() -> LoadFailure {
        LoadFailure::new(LoadCode::DoesNotFit, "needs 9 GiB")
    }

    /// A life after these events, all at time 0.
    fn after(events: &[Event]) -> Lifecycle {
        let mut life = Lifecycle::new(POLICY);
        for event in events {
            life.handle(event.clone(), 0);
        }
        life
    }

    /// One row of the table: what was, what happens, what is then, what to do.
    #[allow(clippy::needless_pass_by_value)]
    fn check(before: &[Event], event: Event, state: &State, commands: &[Command]) {
        let mut life = after(before);
        let got = life.handle(event.clone(), 0);
        assert_eq!(got, commands, "{before:?}, then {event:?}");
        assert_eq!(life.state(), state, "{before:?}, then {event:?}");
    }

    #[test]
    fn loading() {
        use {Command as C, Event as E, State as S};
        let starting = S::Starting { again: false };
        let ready = S::Ready { since_ms: 0 };
        check(&[], E::Load, &starting, &[C::Spawn]);
        // Requirement 60: a second caller joins the first.
        check(&[E::Load], E::Load, &starting, &[]);
        check(&[E::Load], E::Ready, &ready, &[C::Open, C::AnswerLoads(Ok(()))]);
        check(&[E::Load, E::Ready], E::Load, &ready, &[C::AnswerLoads(Ok(()))]);
        let failed = S::Failed(failure());
        let told = C::AnswerLoads(Err(Refused::Failed(failure())));
        check(&[E::Load], E::LoadFailed(failure()), &failed, &[C::ClearAlarm, told, C::Kill]);
        // The child of a failed load ends, and that is no second failure.
        check(&[E::Load, E::LoadFailed(failure())], exited(), &failed, &[]);
        check(&[E::Load, E::LoadFailed(failure())], E::Load, &starting, &[C::Spawn]);
    }

    #[test]
    fn unloading() {
        use {Command as C, Event as E, State as S};
        let (load, ready) = (E::Load, E::Ready);
        let (drain, grace) = (Duration::from_secs(30), POLICY.stop_grace);
        let stop = [C::FailDrained, C::Stop, C::SetAlarm(grace)];
        let loaded = [load.clone(), ready];
        let draining = [&loaded[..], &[unload()]].concat();
        let stopping = [&draining[..], &[E::Idle]].concat();
        check(&loaded, unload(), &S::Draining, &[C::SetAlarm(drain), C::CloseForDrain]);
        check(&draining, E::Idle, &S::Stopping, &stop);
        check(&draining, E::Alarm, &S::Stopping, &stop);
        check(&draining, load.clone(), &S::Draining, &[C::AnswerLoads(Err(Refused::Draining))]);
        check(&stopping, E::Alarm, &S::Stopping, &[C::Kill]);
        check(&stopping, unload(), &S::Stopping, &[]);
        let gone = [C::FailDrained, C::ClearAlarm, C::AnswerUnloads];
        check(&stopping, exited(), &S::Absent, &gone);
        // A child that dies while it drains is not brought back.
        check(&draining, exited(), &S::Absent, &gone);
        let undone = C::AnswerLoads(Err(Refused::Undone));
        let undo = [std::slice::from_ref(&undone), &stop[..]].concat();
        check(std::slice::from_ref(&load), unload(), &S::Stopping, &undo);
        let calm = [C::ClearAlarm, undone, C::AnswerUnloads];
        check(&[load.clone(), exited()], unload(), &S::Absent, &calm);
        check(&[load, E::LoadFailed(failure())], unload(), &S::Absent, &[C::AnswerUnloads]);
    }

    #[test]
    fn a_dead_engine_comes_back_by_itself() {
        use {Command as C, Event as E, State as S};
        // Requirement 121.
        let loaded = [E::Load, E::Ready];
        let wait = C::SetAlarm(POLICY.first_backoff);
        check(&loaded, exited(), &S::Backoff, &[C::FailBroken, wait.clone()]);
        let dead = [&loaded[..], &[exited()]].concat();
        check(&dead, E::Alarm, &S::Starting { again: true }, &[C::Spawn]);
        check(&dead, E::Load, &S::Backoff, &[]);
        // Killed during its first load: tried again as well, and whoever waits goes on waiting.
        check(&[E::Load], exited(), &S::Backoff, &[C::FailBroken, wait]);
        let life = after(&[&dead[..], &[E::Alarm, E::Ready]].concat());
        assert_eq!((life.status(), life.restarts()), (ModelStatus::Ready, 1));
    }

    #[test]
    fn quick_deaths_wait_longer_and_longer_and_then_end_it() {
        let mut life = after(&[Event::Load]);
        let mut waits = Vec::new();
        for _ in 0..3 {
            life.handle(Event::Ready, 0);
            for command in life.handle(exited(), 10) {
                if let Command::SetAlarm(wait) = command {
                    waits.push(wait.as_millis());
                }
            }
            life.handle(Event::Alarm, 20);
        }
        assert_eq!(waits, [100, 200, 300]);
        life.handle(Event::Ready, 0);
        life.handle(exited(), 10);
        let State::Failed(failure) = life.state() else { panic!("{:?}", life.state()) };
        assert_eq!(failure.code, LoadCode::EngineFailed);
        assert!(failure.message.contains("4 times") && failure.message.contains("signal 9"));
    }

    #[test]
    fn a_death_after_a_long_healthy_time_is_the_first_again() {
        let mut life = after(&[Event::Load, Event::Ready, exited(), Event::Alarm]);
        life.handle(Event::Ready, 1_000);
        let commands = life.handle(exited(), 1_000 + 60_000);
        assert_eq!(commands[1], Command::SetAlarm(POLICY.first_backoff));
    }

    #[test]
    fn late_events_change_nothing() {
        for event in [Event::Ready, Event::Idle, Event::Alarm, exited()] {
            check(&[], event, &State::Absent, &[]);
        }
        check(&[Event::Load], Event::Idle, &State::Starting { again: false }, &[]);
    }
}
