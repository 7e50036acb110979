//! Steps that are planned before their tokens are known.

use super::{cached, limits, request, sample};
use crate::{Limits, NewRequest, Sampled, Scheduler, StepPlan};

/// A scheduler in the middle of the step that computes these prompts.
fn under_way(limits: Limits, requests: Vec<NewRequest>) -> (Scheduler, StepPlan) {
    let mut scheduler = Scheduler::new(limits);
    requests.into_iter().for_each(|request| scheduler.add(request).expect("there is room"));
    let plan = scheduler.schedule().expect("there is something to do");
    (scheduler, plan)
}

#[test]
fn every_request_goes_on_by_one_token() {
    let (mut scheduler, plan) = under_way(limits(), vec![request(1, 3, 9), request(2, 4, 9)]);
    let ahead = scheduler.schedule_ahead(&plan).expect("nothing is in the way");
    assert!(ahead.ahead && ahead.copies.is_empty() && ahead.admitted.is_empty());
    let places: Vec<_> = ahead.entries.iter().map(|entry| (entry.request, entry.start)).collect();
    assert_eq!(places, [(1, 3), (2, 4)]);
    let blocks: Vec<_> = ahead.entries.iter().map(|entry| entry.blocks.len()).collect();
    assert_eq!(blocks, [1, 2], "the fifth token begins a block");
    assert_eq!(ahead.entries[1].blocks[0], plan.entries[1].blocks[0]);
    // And behind that one, once the first has been booked.
    scheduler.apply(&plan, &sample(&plan));
    let further = scheduler.schedule_ahead(&ahead).expect("nothing is in the way");
    assert_eq!(further.entries[0].start, 4);
}

/// A planned step is what is planned once the tokens are known.
#[test]
fn a_step_ahead_is_the_step_that_would_follow() {
    let requests = || vec![request(1, 3, 9), request(2, 4, 9)];
    let (mut early, plan) = under_way(cached(), requests());
    let (mut late, _) = under_way(cached(), requests());
    let ahead = early.schedule_ahead(&plan).expect("nothing is in the way");
    late.apply(&plan, &sample(&plan));
    let mut then = late.schedule().expect("both go on");
    for entry in &mut then.entries {
        entry.tokens = vec![0];
    }
    assert_eq!(StepPlan { ahead: true, ..then }, ahead);
}

#[test]
fn what_must_be_seen_first_is_waited_for() {
    let ends = vec![request(1, 3, 1)];
    let long = vec![request(1, 20, 9)];
    let boundary = vec![NewRequest { boundaries: vec![3], ..request(1, 3, 9) }];
    let few_blocks = Limits { kv_blocks: 2, ..limits() };
    let full = vec![request(1, 4, 3), request(2, 4, 3)];
    for (why, limits, requests) in [
        ("its only token is being chosen", limits(), ends),
        ("the prompt is not done", limits(), long),
        ("the state has to be kept", cached(), boundary),
        ("two blocks more than there are", few_blocks, full),
    ] {
        let (mut scheduler, plan) = under_way(limits, requests);
        assert_eq!(scheduler.schedule_ahead(&plan), None, "{why}");
    }
}

#[test]
fn a_newcomer_is_let_in_where_there_is_room() {
    for (max_running, waits) in [(1, true), (2, false)] {
        let limits = Limits { max_running, ..limits() };
        let (mut scheduler, plan) = under_way(limits, vec![request(1, 3, 9)]);
        scheduler.add(request(2, 3, 9)).expect("the line is empty");
        assert_eq!(scheduler.schedule_ahead(&plan).is_some(), waits, "{max_running} at once");
    }
}

/// A request that has ended, or was aborted, has no part in what runs ahead; one whose token is
/// lost is computed again, to the same end.
#[test]
fn what_ended_meanwhile_is_passed_over() {
    let (mut scheduler, plan) =
        under_way(limits(), vec![request(1, 2, 9), request(2, 2, 9), request(3, 2, 9)]);
    let ahead = scheduler.schedule_ahead(&plan).expect("nothing is in the way");
    assert!(scheduler.abort(3));
    let updates = scheduler.apply(&plan, &[Sampled::Token(7), Sampled::Lost, Sampled::Token(5)]);
    assert_eq!(updates.len(), 1, "7 stops the first one");
    assert!(!scheduler.works_on(&ahead));
    assert_eq!(scheduler.apply(&ahead, &sample(&ahead)), []);
    let again = scheduler.schedule().expect("the second one is left");
    assert_eq!((again.entries.len(), again.entries[0].start), (1, 0));
    assert_eq!(again.entries[0].tokens.len(), 2, "it has no token yet");
}
