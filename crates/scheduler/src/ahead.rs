//! A step that is planned before it is known what the one before it chose.
//!
//! A device that must wait until its last token has been read, booked and planned for stands still
//! in the meantime. Most steps of an answer do the same: each request goes on by one token, and
//! which one it is matters to the device alone.

use crate::{Entry, Scheduler, StepPlan};

impl Scheduler {
    /// The step behind `plan`, which is under way: each of its requests goes on with whatever token
    /// it gets, and the entries' `tokens` only say how many there are. A request that turns out to
    /// have ended is passed over when it is applied, as one that was aborted is.
    ///
    /// `None` where the next step is to do anything else: somebody can be admitted or is still at a
    /// prompt, an answer ends for certain, a state has to be kept, or there are too few blocks.
    pub fn schedule_ahead(&mut self, plan: &StepPlan) -> Option<StepPlan> {
        let size = self.limits.block_size;
        let has_room = self.running.len() < self.limits.max_running as usize;
        let is_whole = plan.entries.len() == self.running.len();
        if !is_whole || has_room && !self.waiting.is_empty() {
            return None;
        }
        let mut needed = Vec::new();
        for (entry, request) in plan.entries.iter().zip(&self.running) {
            let reached = entry.start + entry.tokens.len() as u32;
            if entry.request != request.id || !entry.sample || !request.goes_on_behind(reached) {
                return None;
            }
            needed.push(request.blocks_needed(reached + 1 - request.num_computed, size));
        }
        if needed.iter().sum::<u32>() > self.blocks.available() {
            return None;
        }
        let mut ahead = StepPlan { ahead: true, ..StepPlan::default() };
        for (at, entry) in plan.entries.iter().enumerate() {
            let mut blocks = std::mem::take(&mut self.running[at].blocks);
            self.take_blocks(needed[at], &mut blocks, &mut ahead);
            self.running[at].blocks.clone_from(&blocks);
            ahead.entries.push(Entry {
                request: entry.request,
                start: entry.start + entry.tokens.len() as u32,
                tokens: vec![0],
                blocks,
                slot: entry.slot,
                sample: true,
            });
        }
        Some(ahead)
    }

    /// Whether any request of a plan is still at work.
    pub fn works_on(&self, plan: &StepPlan) -> bool {
        self.running.iter().any(|request| plan.contains(request.id))
    }
}
