//! The scheduler against its invariants, by tables and by random operations.

mod ahead;
mod fair;
mod simulate;
mod tiers;

use crate::{End, HostLimits, Limits, NewRequest, Refused, Sampled, Scheduler, StepPlan};

fn limits() -> Limits {
    Limits {
        token_budget: 8,
        max_running: 4,
        max_waiting: 16,
        context: 64,
        block_size: 4,
        kv_blocks: 16,
        state_slots: Some(4),
        prefix_cache: false,
        checkpoint_slots: 0,
        host: HostLimits { budget_bytes: 0, block_bytes: 10, state_bytes: 35 },
    }
}

fn cached() -> Limits {
    Limits { prefix_cache: true, checkpoint_slots: 6, ..limits() }
}

fn request(id: u64, prompt: u32, max_tokens: u32) -> NewRequest {
    let prompt = (0..prompt).map(|token| token + 100 * id as u32).collect();
    NewRequest {
        id,
        prompt,
        answered: vec![],
        max_tokens,
        stop_tokens: vec![7],
        boundaries: vec![],
        isolation: 0,
    }
}

/// Stands in for the model: the next token depends on nothing but the request and its position.
fn sample(plan: &StepPlan) -> Vec<Sampled> {
    let sampling = plan.entries.iter().filter(|entry| entry.sample);
    sampling
        .map(|entry| {
            Sampled::Token(1000 + entry.request as u32 + entry.start + entry.tokens.len() as u32)
        })
        .collect()
}

fn step(scheduler: &mut Scheduler) -> Option<StepPlan> {
    let plan = scheduler.schedule()?;
    let sampled = sample(&plan);
    scheduler.apply(&plan, &sampled);
    Some(plan)
}

#[test]
fn a_long_prompt_is_computed_in_chunks_and_samples_once() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.add(request(1, 19, 2)).unwrap();
    let shares: Vec<_> = std::iter::from_fn(|| step(&mut scheduler))
        .map(|plan| {
            let entry = &plan.entries[0];
            (entry.start, entry.tokens.len(), entry.blocks.len(), entry.sample)
        })
        .collect();
    assert_eq!(shares, [(0, 8, 2, false), (8, 8, 4, false), (16, 3, 5, true), (19, 1, 5, true)]);
    assert!(scheduler.is_idle());
}

#[test]
fn decode_comes_before_prefill() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.add(request(1, 30, 4)).unwrap();
    scheduler.add(request(2, 2, 4)).unwrap();
    let plans: Vec<Vec<_>> = (0..2)
        .map(|_| step(&mut scheduler).unwrap())
        .map(|plan| plan.entries.iter().map(|entry| (entry.request, entry.tokens.len())).collect())
        .collect();
    assert_eq!(plans, [[(1, 6), (2, 2)], [(2, 1), (1, 7)]]);
}

/// A prompt gets its share of a step that answers somebody, and all of one that does not.
#[test]
fn prompts_leave_room_for_answers() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.limit_prompts(3);
    scheduler.add(request(1, 2, 3)).unwrap();
    step(&mut scheduler);
    scheduler.add(request(2, 20, 1)).unwrap();
    let shares: Vec<Vec<_>> = std::iter::from_fn(|| step(&mut scheduler))
        .map(|plan| plan.entries.iter().map(|entry| (entry.request, entry.tokens.len())).collect())
        .collect();
    assert_eq!(shares[0], [(1, 1), (2, 3)]);
    assert_eq!(shares[1], [(1, 1), (2, 3)]);
    assert_eq!(shares[2..], [vec![(2, 8)], vec![(2, 6)]]);
}

#[test]
fn the_youngest_is_preempted_and_starts_over() {
    let mut scheduler = Scheduler::new(Limits { kv_blocks: 4, ..limits() });
    scheduler.add(request(1, 7, 9)).unwrap();
    scheduler.add(request(2, 6, 9)).unwrap();
    let mut starts_of_2 = Vec::new();
    while let Some(plan) = step(&mut scheduler) {
        starts_of_2.extend(plan.entries.iter().filter(|e| e.request == 2).map(|e| e.start));
    }
    let restarts = starts_of_2.iter().filter(|start| **start == 0).count();
    assert_eq!(restarts, 2, "request 2 was preempted once: {starts_of_2:?}");
    assert_eq!(scheduler.occupancy().kv_blocks_free, 4);
}

/// Requirement 63: a request that can never run is refused at once.
#[test]
fn impossible_requests_are_refused_at_once() {
    let mut scheduler = Scheduler::new(limits());
    assert_eq!(scheduler.add(request(1, 60, 5)), Err(Refused::TooLong { limit: 64 }));
    let small = Limits { kv_blocks: 3, ..limits() };
    assert_eq!(Scheduler::new(small).add(request(1, 10, 3)), Err(Refused::TooLong { limit: 12 }));
    assert!(matches!(scheduler.add(request(1, 0, 5)), Err(Refused::Invalid(_))));
    assert!(matches!(scheduler.add(request(1, 3, 0)), Err(Refused::Invalid(_))));
    scheduler.add(request(1, 3, 1)).unwrap();
    assert!(matches!(scheduler.add(request(1, 3, 1)), Err(Refused::Invalid(_))));
}

#[test]
fn a_full_line_refuses() {
    let mut scheduler = Scheduler::new(Limits { max_waiting: 2, ..limits() });
    scheduler.add(request(1, 3, 1)).unwrap();
    scheduler.add(request(2, 3, 1)).unwrap();
    assert_eq!(scheduler.add(request(3, 3, 1)), Err(Refused::QueueFull { waiting: 2 }));
}

/// Requirement 111: one row's error ends that row alone.
#[test]
fn a_row_that_is_not_finite_ends_alone() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.add(request(1, 2, 4)).unwrap();
    scheduler.add(request(2, 2, 4)).unwrap();
    let plan = scheduler.schedule().unwrap();
    let updates = scheduler.apply(&plan, &[Sampled::NotFinite, Sampled::Token(5)]);
    assert_eq!(updates[0].end, Some(End::NotFinite));
    assert_eq!((updates[1].token, updates[1].end), (Some(5), None));
    assert_eq!(scheduler.occupancy().running, 1);
}

#[test]
fn a_stop_token_ends_and_frees() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.add(request(1, 2, 4)).unwrap();
    let plan = scheduler.schedule().unwrap();
    let updates = scheduler.apply(&plan, &[Sampled::Token(7)]);
    assert_eq!(updates[0].end, Some(End::Stop));
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.occupancy().state_slots_free, 4);
}

/// A prompt that is the beginning of another one's is not computed twice.
fn second_prompt_starts_at(
    limits: Limits,
    first: &[u32],
    boundaries: &[u32],
    second: &[u32],
) -> u32 {
    let mut scheduler = Scheduler::new(limits);
    let new = |id, prompt: &[u32]| NewRequest {
        id,
        prompt: prompt.to_vec(),
        answered: vec![],
        max_tokens: 1,
        stop_tokens: vec![],
        boundaries: boundaries.to_vec(),
        isolation: 0,
    };
    scheduler.add(new(1, first)).unwrap();
    while step(&mut scheduler).is_some() {}
    scheduler.add(new(2, second)).unwrap();
    step(&mut scheduler).unwrap().entries[0].start
}

#[test]
fn dense_models_reuse_full_blocks() {
    let dense = Limits { state_slots: None, ..cached() };
    let prompt: Vec<u32> = (0..20).collect();
    let start = |second: &[u32]| second_prompt_starts_at(dense, &prompt, &[], second);
    assert_eq!(start(&prompt), 16, "one token is left to compute");
    assert_eq!(start(&prompt[..17]), 16);
    assert_eq!(start(&prompt[..16]), 12);
    let mut other = prompt.clone();
    other[9] = 99;
    assert_eq!(start(&other), 8, "up to the block in which they differ");
    assert_eq!(second_prompt_starts_at(limits(), &prompt, &[], &prompt), 0, "the cache is off");
}

/// Requirement 51: recurrent state is reused at the exact position where it was kept, or not.
#[test]
fn recurrent_models_reuse_checkpoints() {
    let prompt: Vec<u32> = (0..20).collect();
    let start = |boundaries: &[u32], second: &[u32]| {
        second_prompt_starts_at(cached(), &prompt, boundaries, second)
    };
    assert_eq!(start(&[], &prompt), 0, "blocks without a state are of no use");
    assert_eq!(start(&[7, 13], &prompt), 13);
    assert_eq!(start(&[7, 13], &prompt[..13]), 7);
    assert_eq!(start(&[8], &prompt), 8);
    assert_eq!(start(&[2], &prompt), 2, "within the first block");
    let mut other = prompt.clone();
    other[12] = 99;
    assert_eq!(start(&[7, 13], &other), 7);
    other[6] = 99;
    assert_eq!(start(&[7, 13], &other), 0);
}

/// What made logits that are no numbers is computed anew for everybody else, and what merely
/// allowed no token is not.
#[test]
fn a_row_that_is_not_finite_spoils_its_prefix() {
    let outcomes = [(Sampled::NotFinite, [0, 0, 14]), (Sampled::Nothing, [0, 14, 14])];
    let dense = Limits { state_slots: None, ..cached() };
    for (limits, boundaries) in [(dense, vec![]), (cached(), vec![14]), (cached(), vec![2])] {
        for (sampled, starts) in outcomes {
            let mut scheduler = Scheduler::new(limits);
            let found = [1, 2, 3].map(|id| {
                let (prompt, boundaries) = ((0..20).collect(), boundaries.clone());
                let new = NewRequest { prompt, boundaries, ..request(id, 1, 1) };
                scheduler.add(new).unwrap();
                let mut first = None;
                while let Some(plan) = scheduler.schedule() {
                    first.get_or_insert(plan.entries[0].start);
                    let failed = sample(&plan).into_iter().map(|token| match id {
                        1 => sampled,
                        _ => token,
                    });
                    scheduler.apply(&plan, &failed.collect::<Vec<_>>());
                }
                first.unwrap()
            });
            // A dense model begins at a whole block, and the last state may be an earlier one.
            let most = *boundaries.first().unwrap_or(&16);
            assert_eq!(found, starts.map(|start| if start > 0 { most } else { 0 }), "{sampled:?}");
        }
    }
}

#[test]
fn other_isolation_keys_share_nothing() {
    let starts = |limits, boundaries: &[u32]| {
        let mut scheduler = Scheduler::new(limits);
        [5, 6, 5].map(|isolation| {
            let id = u64::from(scheduler.occupancy().waiting) + 1;
            let (prompt, boundaries) = ((0..20).collect(), boundaries.to_vec());
            let new = NewRequest { prompt, isolation, boundaries, ..request(id, 1, 1) };
            scheduler.add(new).unwrap();
            let plan = step(&mut scheduler).unwrap();
            while step(&mut scheduler).is_some() {}
            plan.entries[0].start
        })
    };
    assert_eq!(starts(Limits { state_slots: None, ..cached() }, &[]), [0, 0, 16]);
    assert_eq!(starts(cached(), &[14]), [0, 0, 14]);
    assert_eq!(starts(cached(), &[2]), [0, 0, 2]);
}
