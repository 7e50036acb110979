//! Random operations over a simulated device and its host.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::{limits, request, sample};
use crate::{Copy, HostItem, HostLimits, Limits, NewRequest, Sampled, Scheduler, StepPlan};

/// What a device and its host would hold: the tokens that each place of a block and each state was
/// made from.
#[derive(Default)]
struct Device {
    blocks: HashMap<u32, Vec<Option<u32>>>,
    states: HashMap<u32, Vec<u32>>,
    host_blocks: HashMap<HostItem, Vec<Option<u32>>>,
    host_states: HashMap<HostItem, Vec<u32>>,
}

impl Device {
    fn copy(&mut self, copy: &Copy, limits: &Limits) {
        let Self { blocks, states, host_blocks, host_states } = self;
        match *copy {
            Copy::State { from, to } => {
                states.insert(to, states[&from].clone());
            }
            Copy::Block { from, to } => {
                blocks.insert(to, blocks[&from].clone());
            }
            Copy::SaveBlock { block, item } => {
                assert!(host_blocks.insert(item, blocks[&block].clone()).is_none());
            }
            Copy::LoadBlock { item, block } => {
                blocks.insert(block, host_blocks[&item].clone());
            }
            Copy::SaveState { slot, item } => {
                assert!(host_states.insert(item, states[&slot].clone()).is_none());
            }
            Copy::LoadState { item, slot } => {
                states.insert(slot, host_states[&item].clone());
            }
            Copy::Forget { item } => {
                let known = host_blocks.remove(&item).is_some();
                assert!(known != host_states.remove(&item).is_some(), "item {item}");
            }
        }
        assert!(self.host_bytes(limits) <= limits.host.budget_bytes, "after {copy:?}");
    }

    fn host_bytes(&self, limits: &Limits) -> u64 {
        self.host_blocks.len() as u64 * limits.host.block_bytes
            + self.host_states.len() as u64 * limits.host.state_bytes
    }

    /// Executes a plan, and fails when an entry would read anything but its own prefix.
    fn run(&mut self, plan: &StepPlan, tokens: &HashMap<u64, Vec<u32>>, limits: &Limits) {
        for copy in &plan.copies {
            self.copy(copy, limits);
        }
        let size = limits.block_size as usize;
        for entry in &plan.entries {
            let known = &tokens[&entry.request];
            let (start, end) = (entry.start as usize, entry.start as usize + entry.tokens.len());
            for (at, token) in known[..start].iter().enumerate() {
                let found = self.blocks[&entry.blocks[at / size]][at % size];
                assert_eq!(found, Some(*token), "request {} reads {at}", entry.request);
            }
            if let Some(slot) = entry.slot {
                let state = self.states.entry(slot).or_default();
                if start == 0 {
                    state.clear();
                }
                assert_eq!(*state, known[..start], "the state of request {}", entry.request);
                state.extend(&known[start..end]);
            }
            for at in start..end {
                let block = self.blocks.entry(entry.blocks[at / size]).or_default();
                block.resize(size, None);
                block[at % size] = Some(known[at]);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Operation {
    /// A prompt that begins like some others do, and then goes its own way.
    Add {
        family: u32,
        common: u32,
        own: u32,
        max_tokens: u32,
        boundaries: Vec<u32>,
        key: u64,
    },
    Abort {
        pick: usize,
    },
    /// Abort between `schedule` and `apply`, as a client that leaves during a step does.
    StepWithAbort {
        pick: usize,
    },
    /// One row of the step is not finite.
    StepWithFailure {
        pick: usize,
    },
    /// The next step starts before this one's tokens are known.
    StepAhead,
    /// And a client leaves meanwhile.
    StepAheadWithAbort {
        pick: usize,
    },
    /// And one row's token is lost, so that the next step computes nonsense for it.
    StepAheadWithLoss {
        pick: usize,
    },
    Step,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (
            (0u32..2, 0u32..30, 1u32..10, 1u32..20),
            prop::collection::vec(0u32..40, 0..4),
            0u64..2,
        )
            .prop_map(|((family, common, own, max_tokens), boundaries, key)| Operation::Add {
                family,
                common,
                own,
                max_tokens,
                boundaries,
                key,
            }),
        1 => any::<usize>().prop_map(|pick| Operation::Abort { pick }),
        1 => any::<usize>().prop_map(|pick| Operation::StepWithAbort { pick }),
        1 => any::<usize>().prop_map(|pick| Operation::StepWithFailure { pick }),
        1 => any::<usize>().prop_map(|pick| Operation::StepAheadWithAbort { pick }),
        1 => any::<usize>().prop_map(|pick| Operation::StepAheadWithLoss { pick }),
        6 => Just(Operation::StepAhead),
        6 => Just(Operation::Step),
    ]
}

/// What the outside knows of live requests: all their tokens so far.
#[derive(Default)]
pub(super) struct Shadow {
    pub(super) tokens: HashMap<u64, Vec<u32>>,
    next_id: u64,
    device: Device,
    /// A step that the device has begun ahead.
    ahead: Option<StepPlan>,
}

/// What happens while a step runs.
#[derive(Clone, Copy, Default)]
struct Meanwhile {
    abort: Option<u64>,
    /// What becomes of one of the rows.
    row: Option<(usize, Sampled)>,
    ahead: bool,
}

impl Shadow {
    fn pick(&self, pick: usize) -> Option<u64> {
        let mut ids: Vec<_> = self.tokens.keys().copied().collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids[pick % ids.len()])
    }

    /// The plan computes true tokens at true positions, in blocks that nobody shares.
    fn check(&self, plan: &StepPlan, limits: &Limits) {
        assert!(plan.tokens() <= limits.token_budget);
        assert!(plan.entries.len() as u32 <= limits.max_running);
        let mut slots = HashSet::new();
        for entry in &plan.entries {
            let known = &self.tokens[&entry.request];
            let end = entry.start as usize + entry.tokens.len();
            assert_eq!(entry.tokens, known[entry.start as usize..end]);
            assert_eq!(entry.sample, end == known.len());
            assert!(entry.blocks.len() * limits.block_size as usize >= end);
            assert!(entry.blocks.iter().all(|block| *block < limits.kv_blocks));
            assert!(entry.slot.is_none_or(|slot| slots.insert(slot)), "a shared slot");
        }
    }

    /// One step, in which a client may leave.
    pub(super) fn run(
        &mut self,
        scheduler: &mut Scheduler,
        abort: Option<u64>,
        limits: &Limits,
    ) -> Option<StepPlan> {
        self.run_with(scheduler, limits, Meanwhile { abort, ..Meanwhile::default() })
    }

    fn run_with(
        &mut self,
        scheduler: &mut Scheduler,
        limits: &Limits,
        meanwhile: Meanwhile,
    ) -> Option<StepPlan> {
        let plan = match self.ahead.take().filter(|plan| scheduler.works_on(plan)) {
            Some(plan) => plan,
            None => self.begin(scheduler.schedule()?, scheduler, limits),
        };
        let mut sampled = sample(&plan);
        if let Some((pick, row)) = meanwhile.row.filter(|_| !sampled.is_empty()) {
            let at = pick % sampled.len();
            sampled[at] = row;
        }
        if meanwhile.ahead
            && let Some(next) = scheduler.schedule_ahead(&plan)
        {
            self.ahead = Some(self.begin_ahead(next, &sampled, scheduler, limits));
        }
        if let Some(id) = meanwhile.abort {
            assert!(scheduler.abort(id));
            self.tokens.remove(&id);
        }
        for update in scheduler.apply(&plan, &sampled) {
            let tokens = self.tokens.get_mut(&update.request).expect("only live requests report");
            tokens.extend(update.token);
            if update.end.is_some() {
                self.tokens.remove(&update.request);
            }
        }
        Some(plan)
    }

    fn begin(&mut self, plan: StepPlan, scheduler: &Scheduler, limits: &Limits) -> StepPlan {
        self.check(&plan, limits);
        self.device.run(&plan, &self.tokens, limits);
        assert_eq!(self.device.host_bytes(limits), scheduler.cache_counts().bytes.host);
        plan
    }

    /// The device knows what it has chosen; the outside does not yet.
    fn begin_ahead(
        &mut self,
        mut plan: StepPlan,
        sampled: &[Sampled],
        scheduler: &Scheduler,
        limits: &Limits,
    ) -> StepPlan {
        let known = self.tokens.clone();
        for (entry, sampled) in plan.entries.iter_mut().zip(sampled) {
            // Nonsense where nothing was chosen.
            let token = if let Sampled::Token(token) = sampled { *token } else { 666_666 };
            entry.tokens = vec![token];
            self.tokens.entry(entry.request).or_default().push(token);
        }
        let plan = self.begin(plan, scheduler, limits);
        self.tokens = known;
        plan
    }

    fn carry_out(&mut self, operation: Operation, scheduler: &mut Scheduler, limits: &Limits) {
        match operation {
            Operation::Add { family, common, own, max_tokens, boundaries, key } => {
                self.next_id += 1;
                let id = self.next_id;
                let mut prompt: Vec<u32> = (0..common).map(|at| at + 5000 * family).collect();
                prompt.extend((0..own).map(|at| at + 100_000 * id as u32));
                let (tokens, isolation) = (prompt.clone(), key);
                let new =
                    NewRequest { prompt, boundaries, isolation, ..request(id, 1, max_tokens) };
                if scheduler.add(new).is_ok() {
                    self.tokens.insert(id, tokens);
                }
            }
            Operation::Abort { pick } => {
                if let Some(id) = self.pick(pick) {
                    assert!(scheduler.abort(id));
                    self.tokens.remove(&id);
                }
            }
            Operation::StepWithAbort { pick } => {
                let abort = self.pick(pick);
                self.run(scheduler, abort, limits);
            }
            Operation::StepWithFailure { pick } => {
                let row = Some((pick, Sampled::NotFinite));
                self.run_with(scheduler, limits, Meanwhile { row, ..Meanwhile::default() });
            }
            Operation::StepAhead => {
                let ahead = true;
                self.run_with(scheduler, limits, Meanwhile { ahead, ..Meanwhile::default() });
            }
            Operation::StepAheadWithAbort { pick } => {
                let abort = self.pick(pick);
                let meanwhile = Meanwhile { abort, ahead: true, row: None };
                self.run_with(scheduler, limits, meanwhile);
            }
            Operation::StepAheadWithLoss { pick } => {
                let row = Some((pick, Sampled::Lost));
                self.run_with(scheduler, limits, Meanwhile { row, ahead: true, abort: None });
            }
            Operation::Step => {
                self.run(scheduler, None, limits);
            }
        }
    }
}

proptest! {
    #[test]
    fn random_operations_keep_the_invariants(
        operations in prop::collection::vec(operation(), 1..120),
        kv_blocks in 6u32..24,
        token_budget in 1u32..12,
        max_running in 1u32..6,
        recurrent: bool,
        prefix_cache: bool,
        checkpoint_slots in 0u32..4,
        budget_bytes in prop_oneof![Just(0u64), 1u64..60, 60u64..400],
    ) {
        let limits = Limits {
            kv_blocks,
            token_budget,
            max_running,
            state_slots: recurrent.then_some(max_running),
            prefix_cache,
            checkpoint_slots,
            host: HostLimits { budget_bytes, ..limits().host },
            ..limits()
        };
        let mut scheduler = Scheduler::new(limits);
        let mut shadow = Shadow::default();
        for operation in operations {
            shadow.carry_out(operation, &mut scheduler, &limits);
        }
        // Nobody starves: all that is left ends within a bounded number of steps.
        let work: usize = shadow.tokens.values().map(|tokens| tokens.len() + 25).sum();
        let bound = (work + 1) * (shadow.tokens.len() + 1) * 4;
        let mut steps = 0;
        while shadow.run(&mut scheduler, None, &limits).is_some() {
            steps += 1;
            prop_assert!(steps <= bound, "still not done after {steps} steps");
        }
        prop_assert!(shadow.tokens.is_empty() && scheduler.is_idle());
        let idle = scheduler.occupancy();
        let slots = if recurrent { max_running } else { 0 };
        prop_assert_eq!((idle.kv_blocks_free, idle.state_slots_free), (kv_blocks, slots));
    }
}
