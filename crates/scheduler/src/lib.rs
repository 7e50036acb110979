//! Who gets how many tokens, blocks and state slots in this step.
//!
//! There is no prefill phase and no decode phase. A request has tokens (its prompt and what was
//! sampled) and `num_computed` of them are in the caches; a step gives each request a number of
//! tokens that closes some of that gap. Chunked prefill, preemption and resumption are that one
//! subtraction. The crate holds no tensors, no clock and no randomness.
#![forbid(unsafe_code)]

mod admit;
mod ahead;
mod blocks;
mod counts;
mod plan;
mod prefix;
mod request;
mod share;
mod state_slots;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use counts::{ByTier, CacheCounts, HostLimits};
pub use plan::{Admission, Copy, Entry, HostItem, Sampled, StepPlan, Update};
pub use request::{End, NewRequest, RequestId};

use blocks::BlockPool;
use prefix::{Device, PrefixCache};
use request::Request;
use share::{Open, shares};
use state_slots::StateSlots;

/// The room that there is. All of it was taken at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens that one step may compute, over all requests.
    pub token_budget: u32,
    /// Requests that hold blocks at the same time.
    pub max_running: u32,
    /// Requests that may wait.
    pub max_waiting: u32,
    /// Tokens that a request may have, prompt and answer together.
    pub context: u32,
    /// Tokens of a KV block.
    pub block_size: u32,
    /// KV blocks.
    pub kv_blocks: u32,
    /// Recurrent state slots; `None` for a model without recurrent layers.
    pub state_slots: Option<u32>,
    /// Whether requests reuse what earlier ones computed.
    pub prefix_cache: bool,
    /// Further slots, numbered after `state_slots`, in which the prefix cache keeps states.
    pub checkpoint_slots: u32,
    /// What the prefix cache may move to the host.
    pub host: HostLimits,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Prompt and answer exceed the context, or all blocks together.
    TooLong {
        /// The most tokens that a request may have here.
        limit: u32,
    },
    /// The line is full.
    QueueFull {
        /// Requests in the line.
        waiting: u32,
    },
    /// An empty prompt, no token to generate, or an id that is in use.
    Invalid(&'static str),
}

/// Counts at a step boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Requests that hold blocks or slots.
    pub running: u32,
    /// Requests in the line.
    pub waiting: u32,
    /// KV blocks that no request holds, those of the prefix cache included.
    pub kv_blocks_free: u32,
    /// State slots that no request holds.
    pub state_slots_free: u32,
}

/// What became of a wish for blocks.
struct Reserved {
    /// Tokens of the plan whose requests were preempted for it.
    withdrawn: u32,
    /// False when the request itself was preempted.
    done: bool,
}

/// The one place where requests, blocks and slots are kept.
pub struct Scheduler {
    limits: Limits,
    /// In order of admission: the oldest first, the youngest is preempted first.
    running: Vec<Request>,
    waiting: VecDeque<Request>,
    blocks: BlockPool,
    slots: StateSlots,
    prefix: PrefixCache,
    /// Tokens of prompts in a step that also answers somebody.
    prompt_share: u32,
}

impl Scheduler {
    /// An idle scheduler over `limits`.
    pub fn new(limits: Limits) -> Self {
        assert!(limits.token_budget > 0 && limits.max_running > 0 && limits.block_size > 0);
        Self {
            limits,
            running: Vec::new(),
            waiting: VecDeque::new(),
            blocks: BlockPool::new(limits.kv_blocks),
            slots: StateSlots::new(limits.state_slots, limits.checkpoint_slots),
            prefix: PrefixCache::new(limits.block_size, limits.host),
            prompt_share: limits.token_budget,
        }
    }

    /// Puts a request at the end of the line, or says at once that it can never run.
    pub fn add(&mut self, new: NewRequest) -> Result<(), Refused> {
        if new.prompt.is_empty() {
            return Err(Refused::Invalid("the prompt has no token"));
        }
        if new.max_tokens == 0 {
            return Err(Refused::Invalid("max_tokens is 0"));
        }
        if new.answered.len() as u64 >= u64::from(new.max_tokens) {
            return Err(Refused::Invalid("the answer has max_tokens already"));
        }
        if self.requests().any(|request| request.id == new.id) {
            return Err(Refused::Invalid("the request id is in use"));
        }
        let limit = self.longest_request();
        let wanted = new.prompt.len() as u64 + u64::from(new.max_tokens);
        if wanted > u64::from(limit) {
            return Err(Refused::TooLong { limit });
        }
        let waiting = self.waiting.len() as u32;
        if waiting >= self.limits.max_waiting {
            return Err(Refused::QueueFull { waiting });
        }
        self.waiting.push_back(Request::new(new));
        Ok(())
    }

    /// The most tokens that one request may have: the context, or all blocks if those are fewer.
    pub fn longest_request(&self) -> u32 {
        let in_blocks = u64::from(self.limits.kv_blocks) * u64::from(self.limits.block_size);
        u64::from(self.limits.context).min(in_blocks) as u32
    }

    /// Forgets a request and frees what it holds. False when the id is unknown, which is no error:
    /// an end and an abort may cross.
    pub fn abort(&mut self, id: RequestId) -> bool {
        if let Some(at) = self.running.iter().position(|request| request.id == id) {
            let mut request = self.running.remove(at);
            self.release(&mut request);
            return true;
        }
        let before = self.waiting.len();
        self.waiting.retain(|request| request.id != id);
        self.waiting.len() < before
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Counts right now.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            running: self.running.len() as u32,
            waiting: self.waiting.len() as u32,
            kv_blocks_free: self.blocks.available(),
            state_slots_free: self.slots.free(),
        }
    }

    /// What the prefix cache did and holds.
    pub fn cache_counts(&self) -> CacheCounts {
        let mut counts = self.prefix.counts();
        let HostLimits { block_bytes, state_bytes, .. } = self.limits.host;
        counts.bytes.device = u64::from(self.blocks.kept()) * block_bytes
            + u64::from(self.slots.checkpoints_taken()) * state_bytes;
        counts
    }

    /// From now on, a step that answers somebody computes at most this many tokens of prompts.
    ///
    /// # Panics
    /// When it is 0: prompts would stand still while anybody is answered.
    pub fn limit_prompts(&mut self, tokens: u32) {
        assert!(tokens > 0, "a prompt gets some of every step");
        self.prompt_share = tokens;
    }

    /// Plans a step: requests that wait for their next token first, then prompts, which share what
    /// is left: see the module `share`. `None` when there is nothing to do.
    pub fn schedule(&mut self) -> Option<StepPlan> {
        let mut plan = StepPlan::default();
        let mut budget = self.limits.token_budget;
        self.plan_answers(&mut plan, &mut budget);
        if !plan.entries.is_empty() {
            budget = budget.min(self.prompt_share);
        }
        self.admit(&mut plan, budget);
        self.plan_prompts(&mut plan, budget);
        assert!(plan.tokens() <= self.limits.token_budget, "the plan exceeds its budget");
        let nothing = plan.entries.is_empty();
        assert!(!nothing || self.is_idle(), "a step that helps nobody");
        (!nothing).then_some(plan)
    }

    /// Books what a step computed and sampled. `sampled` holds one item for each entry of the plan
    /// with `sample` set, in the plan's order. Requests aborted meanwhile are passed over.
    pub fn apply(&mut self, plan: &StepPlan, sampled: &[Sampled]) -> Vec<Update> {
        assert_eq!(sampled.len(), plan.entries.iter().filter(|entry| entry.sample).count());
        let mut sampled = sampled.iter();
        let mut updates = Vec::new();
        for entry in &plan.entries {
            let sampled = if entry.sample { sampled.next() } else { None };
            let Some(at) = self.running.iter().position(|request| request.id == entry.request)
            else {
                continue;
            };
            let request = &mut self.running[at];
            request.num_computed = entry.start + entry.tokens.len() as u32;
            if sampled == Some(&Sampled::NotFinite) {
                self.prefix.spoil(request.isolation, &request.nodes, request.tokens());
            } else {
                self.keep_blocks(at);
            }
            let request = &mut self.running[at];
            let Some(&sampled) = sampled else { continue };
            if sampled == Sampled::Lost {
                self.preempt(at);
                continue;
            }
            let update = request.accept(sampled);
            if update.end.is_some() {
                let mut request = self.running.remove(at);
                self.release(&mut request);
            }
            updates.push(update);
        }
        updates
    }

    fn requests(&self) -> impl Iterator<Item = &Request> {
        self.running.iter().chain(&self.waiting)
    }

    /// One token for each running request that misses no more, oldest first.
    fn plan_answers(&mut self, plan: &mut StepPlan, budget: &mut u32) {
        let mut at = 0;
        while at < self.running.len() && *budget > 0 {
            if self.running[at].missing() > 1 {
                at += 1;
                continue;
            }
            self.keep_state(at, plan);
            *budget -= 1;
            match self.reserve_or_preempt(at, 1, plan) {
                Reserved { withdrawn, done: true } => {
                    *budget += withdrawn;
                    plan.entries.push(self.running[at].entry(1));
                    at += 1;
                }
                // The request itself was preempted: whoever follows has moved up to `at`.
                Reserved { withdrawn, done: false } => *budget += 1 + withdrawn,
            }
        }
    }

    /// Shares `budget` out among the running requests that have no part of the plan yet.
    fn plan_prompts(&mut self, plan: &mut StepPlan, budget: u32) {
        let open = self.running.iter().filter(|request| !plan.contains(request.id));
        let (ids, open): (Vec<RequestId>, Vec<Open>) = open
            .map(|request| {
                let (missing, most) = (request.missing(), self.most(request));
                (request.id, Open { missing, most })
            })
            .unzip();
        for (id, share) in ids.into_iter().zip(shares(&open, budget)) {
            let at = self.running.iter().position(|request| request.id == id);
            // Without a place it was preempted for an older one.
            let Some(at) = at.filter(|_| share > 0) else { continue };
            self.keep_state(at, plan);
            if self.reserve_or_preempt(at, share, plan).done {
                plan.entries.push(self.running[at].entry(share));
            }
        }
    }

    /// How many tokens of a request one step may compute: not past a boundary, where the state has
    /// to be kept as it is there.
    fn most(&self, request: &Request) -> u32 {
        match request.to_boundary() {
            Some(distance) if self.keeps_states() => request.missing().min(distance),
            _ => request.missing(),
        }
    }

    fn keeps_states(&self) -> bool {
        self.limits.prefix_cache
            && self.limits.state_slots.is_some()
            && self.limits.checkpoint_slots > 0
    }

    /// Takes the blocks for `count` more tokens of `running[at]`. While there are none, the
    /// youngest request goes back to the line.
    fn reserve_or_preempt(&mut self, at: usize, count: u32, plan: &mut StepPlan) -> Reserved {
        let mut withdrawn = 0;
        loop {
            let needed = self.running[at].blocks_needed(count, self.limits.block_size);
            if needed <= self.blocks.available() {
                let mut table = std::mem::take(&mut self.running[at].blocks);
                self.take_blocks(needed, &mut table, plan);
                self.running[at].blocks = table;
                return Reserved { withdrawn, done: true };
            }
            let youngest = self.running.len() - 1;
            withdrawn += plan.withdraw(self.running[youngest].id);
            self.preempt(youngest);
            if youngest == at {
                return Reserved { withdrawn, done: false };
            }
        }
    }

    /// Sends `running[at]` back to the head of the line.
    fn preempt(&mut self, at: usize) {
        let mut request = self.running.remove(at);
        self.release(&mut request);
        self.waiting.push_front(request);
    }

    /// Moves `count` blocks to the end of `table`; what the prefix cache keeps makes room.
    fn take_blocks(&mut self, count: u32, table: &mut Vec<u32>, plan: &mut StepPlan) {
        let Self { prefix, blocks, slots, .. } = self;
        let device = &mut Device { blocks, slots, copies: &mut plan.copies };
        table.extend((0..count).map(|_| prefix.take_block(device)));
    }

    /// Keeps the blocks of `running[at]` that have been filled.
    fn keep_blocks(&mut self, at: usize) {
        if !self.limits.prefix_cache {
            return;
        }
        let size = self.limits.block_size as usize;
        let request = &mut self.running[at];
        for full in request.nodes.len()..request.num_computed as usize / size {
            let place = request.place();
            let (block, tokens) =
                (request.blocks[full], &request.tokens()[full * size..(full + 1) * size]);
            let (node, block) = self.prefix.insert(place, tokens, block, &mut self.blocks);
            request.nodes.push(node);
            request.blocks[full] = block;
        }
    }

    /// Keeps the recurrent state of `running[at]` when it stands at a boundary: the step copies it
    /// before it computes on.
    fn keep_state(&mut self, at: usize, plan: &mut StepPlan) {
        let request = &self.running[at];
        let Some(from) = request.slot.filter(|_| self.keeps_states() && request.is_at_boundary())
        else {
            return;
        };
        let size = self.limits.block_size as usize;
        let computed = request.num_computed as usize;
        let (place, start) = (request.place(), request.nodes.len() * size);
        let tail = &request.tokens()[start..computed];
        if self.prefix.has_checkpoint(place, tail) {
            return;
        }
        let tail_block = if tail.is_empty() { None } else { Some(request.blocks[start / size]) };
        let Self { prefix, blocks, slots, .. } = self;
        let device = &mut Device { blocks, slots, copies: &mut plan.copies };
        let Some(to) = prefix.take_checkpoint_slot(device) else { return };
        prefix.add_checkpoint(place, tail, tail_block, to, device.blocks);
        plan.copies.push(Copy::State { from, to });
    }

    /// Frees what a request holds and forgets what was computed. When it is admitted again, the
    /// prefix cache may still have most of it.
    fn release(&mut self, request: &mut Request) {
        let start = request.nodes.len() * self.limits.block_size as usize;
        let then = request.tokens().get(start..request.num_computed as usize).unwrap_or_default();
        self.prefix.let_go(&request.nodes, then, &mut self.blocks);
        for block in request.blocks.drain(..).skip(request.nodes.len()) {
            self.blocks.let_go(block);
        }
        request.nodes.clear();
        self.slots.give_back(request.slot.take());
        request.num_computed = 0;
    }
}
