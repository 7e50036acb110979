//! Who comes in from the line.

use crate::prefix::Hit;
use crate::request::Request;
use crate::share::has_room;
use crate::{Admission, Device, Scheduler, StepPlan};

/// Requests of the line that are looked at in a step.
const LOOKED_AT: usize = 8;
/// Requests that may pass one that waits.
pub(crate) const MOST_PASSED: u32 = 32;

impl Scheduler {
    /// Admits from the front of the line, whoever gets a part of this step's `budget` for prompts.
    ///
    /// Two kinds of requests are passed by those behind them, a bounded number of times: one whose
    /// beginning another request is computing right now, since it would do the same work; and one
    /// that would get nothing of the step, since shorter prompts go first. A request enters when
    /// all present tokens, its own and those of the requests before it, have room, not merely its
    /// first chunk: two half-admitted prompts would preempt one another for ever.
    pub(super) fn admit(&mut self, plan: &mut StepPlan, budget: u32) {
        let mut at = 0;
        while budget > 0
            && at < self.waiting.len().min(LOOKED_AT)
            && (self.running.len() as u32) < self.limits.max_running
            && self.slots.has_room()
        {
            let front = &self.waiting[at];
            let hit = self.find(front);
            if self.is_better_off_later(front, &hit, plan, budget) {
                if front.passed >= MOST_PASSED {
                    return;
                }
                at += 1;
                continue;
            }
            let all = (front.tokens().len() as u32).div_ceil(self.limits.block_size);
            let new = all - self.prefix.held(&hit.nodes);
            if new + self.promised() > self.blocks.available() {
                return;
            }
            self.waiting.iter_mut().take(at).for_each(|passed| passed.passed += 1);
            let Some(mut request) = self.waiting.remove(at) else { return };
            request.slot = self.slots.take();
            self.reuse(&mut request, hit, plan);
            self.running.push(request);
        }
    }

    /// Whether a request would get nothing of this step, or would do work that another one does.
    fn is_better_off_later(
        &self,
        request: &Request,
        hit: &Hit,
        plan: &StepPlan,
        budget: u32,
    ) -> bool {
        let open = self.running.iter().filter(|open| !plan.contains(open.id)).map(Request::missing);
        let missing = request.tokens().len() as u32 - hit.tokens;
        !has_room(open, missing, budget) || self.is_being_computed(request, hit)
    }

    fn find(&self, request: &Request) -> Hit {
        if !self.limits.prefix_cache {
            return Hit::default();
        }
        let recurrent = self.limits.state_slots.is_some();
        self.prefix.find(request.isolation, request.tokens(), recurrent)
    }

    /// Blocks that the present tokens of running requests still need.
    fn promised(&self) -> u32 {
        let size = self.limits.block_size;
        self.running.iter().map(|request| request.blocks_needed(request.missing(), size)).sum()
    }

    /// Whether a running request is about to compute more of this one's beginning than `hit`, so
    /// that waiting for it saves work.
    fn is_being_computed(&self, request: &Request, hit: &Hit) -> bool {
        let mut others = self.running.iter().filter(|other| {
            self.limits.prefix_cache && other.isolation == request.isolation && other.missing() > 1
        });
        // What has just been computed of a recurrent state is kept with the next step.
        others.any(|other| {
            let shared = self.will_share(other, request);
            shared > hit.tokens && shared >= other.num_computed
        })
    }

    /// The tokens of `request` that it could take over from `other`, were that one computed.
    fn will_share(&self, other: &Request, request: &Request) -> u32 {
        let ours = &request.tokens()[..request.tokens().len() - 1];
        let common = other.tokens().iter().zip(ours).take_while(|(a, b)| a == b).count() as u32;
        match self.limits.state_slots {
            None => common / self.limits.block_size * self.limits.block_size,
            Some(_) if self.keeps_states() => other.last_boundary(common),
            Some(_) => 0,
        }
    }

    /// Lets a request begin where the prefix cache ends.
    fn reuse(&mut self, request: &mut Request, hit: Hit, plan: &mut StepPlan) {
        let Self { prefix, blocks, slots, .. } = self;
        // A resumed request finds its own work, which would flatter the counts.
        if !std::mem::replace(&mut request.looked_up, true) {
            prefix.count(request.tokens().len(), &hit);
        }
        let device = &mut Device { blocks, slots, copies: &mut plan.copies };
        request.blocks = prefix.restore(&hit, request.slot, device);
        request.num_computed = hit.tokens;
        plan.admitted.push(Admission {
            request: request.id,
            cached_tokens: hit.tokens,
            diverged_at: hit.diverged_at,
        });
        request.nodes = hit.nodes;
    }
}
