//! Prompts beside prompts: who waits for whom, and for how long.

use super::{cached, limits, request, step};
use crate::admit::MOST_PASSED;
use crate::{Limits, NewRequest, Scheduler};

/// Room for everybody in `kv_blocks` of sixteen tokens; steps of 64.
fn wide() -> Limits {
    Limits {
        token_budget: 64,
        max_running: 8,
        context: 4096,
        block_size: 16,
        kv_blocks: 1024,
        state_slots: None,
        ..limits()
    }
}

/// Steps until the request samples its first token.
fn steps_to_first_token(scheduler: &mut Scheduler, id: u64) -> usize {
    for at in 1..1000 {
        let plan = step(scheduler).expect("somebody is left");
        if plan.entries.iter().any(|entry| entry.request == id && entry.sample) {
            return at;
        }
    }
    panic!("request {id} starves");
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let mut scheduler = Scheduler::new(wide());
    scheduler.add(request(1, 2000, 1)).unwrap();
    step(&mut scheduler);
    scheduler.add(request(2, 40, 1)).unwrap();
    assert_eq!(steps_to_first_token(&mut scheduler, 2), 2, "32 tokens, then 8");
    // The long one had the rest: (2000 - 64 - 32 - 56) / 64 more steps.
    assert_eq!(steps_to_first_token(&mut scheduler, 1), 29);
}

#[test]
fn a_short_prompt_passes_all_long_ones() {
    let mut scheduler = Scheduler::new(wide());
    for id in 1..5 {
        scheduler.add(request(id, 1000, 1)).unwrap();
        step(&mut scheduler);
    }
    scheduler.add(request(9, 30, 1)).unwrap();
    assert_eq!(steps_to_first_token(&mut scheduler, 9), 1);
}

/// However many short ones come, a long one keeps half of its speed.
#[test]
fn the_oldest_prompt_keeps_half_of_its_speed() {
    let mut scheduler = Scheduler::new(wide());
    scheduler.add(request(1, 640, 1)).unwrap();
    let (mut next, mut steps) = (2, 0);
    while scheduler.requests().any(|request| request.id == 1) {
        scheduler.add(request(next, 40, 1)).unwrap();
        next += 1;
        step(&mut scheduler);
        steps += 1;
    }
    assert_eq!(steps, 20, "ten steps alone");
}

#[test]
fn a_share_that_nobody_else_takes_is_the_oldest_ones() {
    let mut scheduler = Scheduler::new(wide());
    scheduler.add(request(1, 640, 1)).unwrap();
    assert_eq!(steps_to_first_token(&mut scheduler, 1), 10);
}

/// A long prompt in the line is passed so and so often, and then never again.
#[test]
fn the_line_moves_on_under_any_load() {
    let mut scheduler = Scheduler::new(wide());
    scheduler.add(request(1, 4000, 1)).unwrap();
    scheduler.add(request(2, 2000, 1)).unwrap();
    step(&mut scheduler);
    // It would get nothing beside the second, which has less left.
    scheduler.add(request(1000, 3000, 1)).unwrap();
    let (mut next, mut passed) = (3, 0);
    loop {
        while scheduler.occupancy().waiting < 3 {
            scheduler.add(request(next, 31, 1)).unwrap();
            next += 1;
        }
        let plan = step(&mut scheduler).unwrap();
        if plan.admitted.iter().any(|admitted| admitted.request == 1000) {
            break;
        }
        passed += plan.admitted.len();
        assert!(passed <= MOST_PASSED as usize, "passed {passed} times");
    }
    assert_eq!(passed, MOST_PASSED as usize);
}

/// Two prompts with one beginning: the second waits and takes it over, and is passed meanwhile.
#[test]
fn a_beginning_that_is_being_computed_is_not_computed_twice() {
    for recurrent in [false, true] {
        let limits = Limits {
            state_slots: recurrent.then_some(8),
            prefix_cache: true,
            checkpoint_slots: 8,
            ..wide()
        };
        let mut scheduler = Scheduler::new(limits);
        let twin = |id: u64, own: u32| {
            let prompt: Vec<u32> = (0..320).chain(own..own + 20).collect();
            NewRequest { prompt, boundaries: vec![320], ..request(id, 1, 1) }
        };
        scheduler.add(twin(1, 5000)).unwrap();
        scheduler.add(twin(2, 6000)).unwrap();
        scheduler.add(request(3, 30, 1)).unwrap();
        let mut computed = [0; 4];
        let mut first_of_3 = None;
        let mut steps = 0;
        while let Some(plan) = step(&mut scheduler) {
            steps += 1;
            for entry in &plan.entries {
                computed[entry.request as usize] += entry.tokens.len();
                if entry.request == 3 && entry.sample {
                    first_of_3 = Some(steps);
                }
            }
        }
        assert_eq!(computed[1..], [340, 20, 30], "recurrent: {recurrent}");
        assert_eq!(first_of_3, Some(1), "the third passes the second");
    }
}

/// Prompts that have room one after the other, and not together, follow one another: nothing is
/// computed twice.
#[test]
fn prompts_do_not_preempt_one_another() {
    for prefix_cache in [false, true] {
        let limits = Limits { kv_blocks: 50, prefix_cache, ..wide() };
        let mut scheduler = Scheduler::new(limits);
        for id in 1..4 {
            scheduler.add(request(id, 480, 1)).unwrap();
        }
        let mut computed = 0;
        while let Some(plan) = step(&mut scheduler) {
            computed += plan.tokens();
        }
        assert_eq!(computed, 3 * 480);
    }
}

/// A newcomer whose prompt is cached but for its last token is answered in the next step.
#[test]
fn a_cached_prompt_is_answered_beside_a_long_one() {
    let mut scheduler = Scheduler::new(Limits { state_slots: None, ..cached() });
    scheduler.add(request(1, 17, 1)).unwrap();
    while step(&mut scheduler).is_some() {}
    scheduler.add(request(2, 40, 1)).unwrap();
    step(&mut scheduler);
    scheduler.add(NewRequest { id: 3, ..request(1, 17, 1) }).unwrap();
    assert_eq!(steps_to_first_token(&mut scheduler, 3), 1);
}
