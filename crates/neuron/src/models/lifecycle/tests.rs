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
