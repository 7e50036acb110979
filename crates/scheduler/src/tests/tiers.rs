//! What moves to the host and comes back, and what a look-up says.

use super::simulate::Shadow;
use super::{cached, limits, request};
use crate::{ByTier, CacheCounts, Copy, HostLimits, Limits, NewRequest, Scheduler, StepPlan};

/// Six blocks and one checkpoint: a prompt of 20 tokens leaves no room for another one's.
fn tight(budget_bytes: u64, recurrent: bool) -> Limits {
    Limits {
        token_budget: 64,
        kv_blocks: 6,
        state_slots: recurrent.then_some(1),
        max_running: 1,
        checkpoint_slots: 1,
        host: HostLimits { budget_bytes, ..limits().host },
        ..cached()
    }
}

/// A scheduler whose plans are carried out and checked.
struct Pair {
    limits: Limits,
    scheduler: Scheduler,
    shadow: Shadow,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        Self { limits, scheduler: Scheduler::new(limits), shadow: Shadow::default() }
    }

    /// Runs a prompt to its end; the answer is its first step.
    fn run(&mut self, prompt: &[u32], boundaries: &[u32]) -> StepPlan {
        let (prompt, boundaries) = (prompt.to_vec(), boundaries.to_vec());
        self.shadow.tokens.insert(1, prompt.clone());
        self.scheduler.add(NewRequest { prompt, boundaries, ..request(1, 1, 1) }).unwrap();
        let mut step = || self.shadow.run(&mut self.scheduler, None, &self.limits);
        let first = step().unwrap();
        while step().is_some() {}
        first
    }

    fn counts(&self) -> CacheCounts {
        self.scheduler.cache_counts()
    }
}

fn kinds(plan: &StepPlan) -> String {
    let kind = |copy: &Copy| match copy {
        Copy::State { .. } => 's',
        Copy::Block { .. } => 'b',
        Copy::SaveBlock { .. } => 'B',
        Copy::LoadBlock { .. } => 'L',
        Copy::SaveState { .. } => 'S',
        Copy::LoadState { .. } => 'R',
        Copy::Forget { .. } => 'f',
    };
    plan.copies.iter().map(kind).collect()
}

#[test]
fn blocks_come_back_from_the_host() {
    let (one, other): (Vec<u32>, Vec<u32>) = ((0..20).collect(), (100..120).collect());
    let mut pair = Pair::new(tight(1000, false));
    pair.run(&one, &[]);
    let plan = pair.run(&other, &[]);
    assert_eq!(kinds(&plan), "BBBB", "one block was free, four of five kept ones make room");
    assert_eq!(pair.counts().bytes, ByTier { device: 60, host: 40 });
    let plan = pair.run(&one, &[]);
    assert_eq!(plan.entries[0].start, 16);
    assert_eq!(plan.admitted[0].cached_tokens, 16);
    let counts = pair.counts();
    assert_eq!((counts.looked_up_tokens, counts.hit_tokens), (60, ByTier { device: 4, host: 12 }));
    // The last block was computed anew, and its copy on the host goes when its room is needed.
    assert_eq!(counts.bytes, ByTier { device: 60, host: 50 });
}

/// A state comes back with the block in whose middle it stands, and stays where it is.
#[test]
fn states_come_back_from_the_host() {
    let (one, other): (Vec<u32>, Vec<u32>) = ((0..14).collect(), (100..114).collect());
    let mut pair = Pair::new(tight(1000, true));
    pair.run(&one, &[10]);
    pair.run(&other, &[10]);
    for _ in 0..3 {
        let plan = pair.run(&one, &[10]);
        assert_eq!(plan.entries[0].start, 10);
        assert!(kinds(&plan).starts_with('R'), "{}", kinds(&plan));
    }
    let hits = pair.counts().hit_tokens;
    assert_eq!((hits.device + hits.host, pair.counts().looked_up_tokens), (30, 70));
}

/// What a request is being given makes no room for what has to leave the device meanwhile.
#[test]
fn a_state_stays_on_the_host_until_it_is_restored() {
    let (one, other): (Vec<u32>, Vec<u32>) = ((0..14).collect(), (100..112).collect());
    let mut pair = Pair::new(tight(45, true));
    pair.run(&one, &[10]);
    pair.run(&other, &[6]);
    assert_eq!(pair.counts().bytes, ByTier { device: 60 + 35, host: 45 }, "no block is free");
    let plan = pair.run(&one, &[10]);
    assert_eq!((plan.entries[0].start, &kinds(&plan)[..2]), (10, "RL"));
}

/// Blocks that lie on the host are computed anew when there is no state to begin from, and their
/// copies give way once there is something better to keep.
#[test]
fn outdated_copies_make_room() {
    let (one, other): (Vec<u32>, Vec<u32>) = ((0..20).collect(), (100..120).collect());
    let mut pair = Pair::new(tight(100, true));
    for prompt in [&one, &other, &one, &other, &one, &other] {
        pair.run(prompt, &[]);
    }
    let counts = pair.counts();
    assert_eq!(counts.evictions, ByTier { device: 24, host: 0 }, "the host has room for all ten");
}

#[test]
fn a_budget_that_holds_less_keeps_the_beginning() {
    let (one, other): (Vec<u32>, Vec<u32>) = ((0..20).collect(), (100..120).collect());
    // The leaves move first, and the first of them are the first to go.
    for (budget, start) in [(0, 4), (10, 8), (25, 12), (40, 16)] {
        let mut pair = Pair::new(tight(budget, false));
        pair.run(&one, &[]);
        pair.run(&other, &[]);
        assert!(pair.counts().bytes.host <= budget);
        let plan = pair.run(&one, &[]);
        assert_eq!(plan.entries[0].start, start, "{budget} bytes");
    }
    // A state takes 35 bytes and its block 10.
    for (budget, start) in [(44, 0), (45, 10)] {
        let mut pair = Pair::new(tight(budget, true));
        pair.run(&one[..14], &[10]);
        pair.run(&other[..8], &[6]);
        let plan = pair.run(&one[..14], &[10]);
        assert_eq!(plan.entries[0].start, start, "{budget} bytes");
    }
}

/// The first token that differs, whether or not what is before it could be used.
#[test]
fn a_look_up_says_where_the_prompts_part() {
    let prompt: Vec<u32> = (0..22).collect();
    let parted = |second: &[u32], recurrent: bool| {
        let mut pair = Pair::new(Limits { kv_blocks: 16, ..tight(0, recurrent) });
        pair.run(&prompt, &[]);
        pair.run(second, &[]).admitted[0].diverged_at
    };
    let with = |at: usize| {
        let mut edited = prompt.clone();
        edited[at] = 99;
        edited
    };
    for recurrent in [false, true] {
        let parted = |second: &[u32]| parted(second, recurrent);
        assert_eq!(parted(&prompt), None, "the same");
        assert_eq!(parted(&prompt[..9]), None, "its beginning");
        assert_eq!(parted(&[prompt.clone(), vec![5, 6]].concat()), None, "it goes on");
        assert_eq!(parted(&with(0)), Some(0));
        assert_eq!(parted(&with(9)), Some(9));
        assert_eq!(parted(&with(12)), Some(12), "where a block begins");
        assert_eq!(parted(&with(21)), Some(21), "behind the last full block");
        assert_eq!(parted(&with(9)[..11]), Some(9));
    }
    let mut pair = Pair::new(tight(0, false));
    let first = pair.run(&prompt, &[]);
    assert_eq!(first.admitted[0].diverged_at, None, "there is nothing to part from");
}
