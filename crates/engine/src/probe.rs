//! What is proved at every load, by two short prompts: that the model's logits are numbers
//! (requirement 54), and that what comes out of the prefix cache is what would have been computed,
//! when they are run cold and then again from wherever the cache kept them.
//!
//! A cache that is wrong answers fluently and falsely, so it has to earn its use on the very device
//! and model that it is going to serve.

use kernels::Backend;
use scheduler::{Copy, HostItem, Limits, NewRequest, Sampled, Scheduler, StepPlan};

use crate::contract::{EngineInfo, Fault};
use crate::executor::{Execute, Executor};
use crate::inputs::{StepWork, step_work};

/// Tokens past the first block at which a state is kept: in the middle of the second one.
const BOUNDARY: u32 = 5;
/// Tokens past that.
const REST: u32 = 3;
/// Tokens that follow the prompt, so that what was restored is also gone on with.
const GENERATED: u32 = 2;

/// What the proof runs on: all ranks of a model.
pub(crate) trait Steps {
    /// One step, on every rank.
    fn forward(&mut self, work: &StepWork) -> Result<(), Fault>;
    /// The first `rows` rows of that step's logits.
    fn logits(&mut self, rows: usize) -> Vec<f32>;
}

impl<B: Backend> Steps for Executor<B> {
    fn forward(&mut self, work: &StepWork) -> Result<(), Fault> {
        Execute::forward(self, work)
    }

    fn logits(&mut self, rows: usize) -> Vec<f32> {
        Executor::logits(self, rows)
    }
}

/// Says so when the model's logits are no numbers. Turns the cache off if it was asked for and
/// fails the proof.
pub(crate) fn settle(
    steps: &mut impl Steps,
    info: &mut EngineInfo,
    limits: &mut Limits,
) -> Result<(), Fault> {
    info.unsound = unsound(steps, limits, info.vocab_size)?;
    if limits.prefix_cache {
        info.prefix_cache.off = doubt(steps, limits, info.vocab_size)?;
        limits.prefix_cache = info.prefix_cache.off.is_none();
    }
    Ok(())
}

/// Runs the beginning of a prompt, as much as there is room for, and looks at its logits.
fn unsound(
    steps: &mut impl Steps,
    limits: &Limits,
    vocab_size: u32,
) -> Result<Option<String>, Fault> {
    let limits = Limits { prefix_cache: false, max_running: 1, ..*limits };
    let mut probe = Probe::new(steps, limits);
    let most = probe.scheduler.longest_request().saturating_sub(GENERATED);
    let mut prompt = probe.prompt(7, vocab_size);
    prompt.truncate(most as usize);
    if prompt.is_empty() {
        return Ok(None);
    }
    let logits = probe.run(&prompt)?.logits;
    let sound = |bits: &&u32| {
        let logit = f32::from_bits(**bits);
        !logit.is_nan() && logit < f32::INFINITY
    };
    let broken = logits.len() - logits.iter().filter(sound).count();
    Ok((broken > 0).then(|| {
        let of = logits.len();
        format!(
            "{broken} of {of} logits of the first steps are NaN or infinite: the weights or the \
             device are broken, and requests will end with an error"
        )
    }))
}

/// Runs the proof on ranks that have nothing to do. The answer is why the cache must not be used,
/// if it must not; what is left behind are blocks and slots that count as free.
fn doubt(
    steps: &mut impl Steps,
    limits: &Limits,
    vocab_size: u32,
) -> Result<Option<String>, Fault> {
    let recurrent = limits.state_slots.is_some();
    if recurrent && limits.checkpoint_slots == 0 {
        return Ok(Some("no recurrent state can be kept: `checkpoints` is 0".to_owned()));
    }
    // As many blocks as one prompt needs, and one for a copy: the second prompt drives what is
    // kept of the first from the device.
    let kv_blocks = 2 + u32::from(recurrent);
    let tokens = limits.block_size + BOUNDARY + REST;
    if limits.kv_blocks < kv_blocks || limits.context < tokens + GENERATED {
        return Ok(Some(format!("fewer than {kv_blocks} KV blocks leave nothing to reuse")));
    }
    let limits = Limits {
        // So that a step that begins at a whole block computes the same rows cold and warm.
        token_budget: limits.token_budget.min(limits.block_size),
        max_running: 1,
        kv_blocks,
        checkpoint_slots: limits.checkpoint_slots.min(1),
        ..*limits
    };
    let mut probe = Probe::new(steps, limits);
    let doubt = probe.compare(vocab_size)?;
    probe.clear()?;
    Ok(doubt)
}

struct Probe<'a, S: Steps> {
    steps: &'a mut S,
    scheduler: Scheduler,
    limits: Limits,
    /// Items that lie in host memory.
    on_host: Vec<HostItem>,
}

/// What a prompt's run brought: how much of it was cached, and the bits of all its logits.
struct Run {
    cached_tokens: u32,
    logits: Vec<u32>,
}

impl<'a, S: Steps> Probe<'a, S> {
    fn new(steps: &'a mut S, limits: Limits) -> Self {
        Self { steps, scheduler: Scheduler::new(limits), limits, on_host: Vec::new() }
    }

    fn compare(&mut self, vocab_size: u32) -> Result<Option<String>, Fault> {
        let [one, other] = [7, 11].map(|seed| self.prompt(seed, vocab_size));
        let cold = self.run(&one)?;
        let warm = self.run(&one)?;
        if warm.cached_tokens == 0 {
            return Ok(Some("a prompt that was just computed was not found again".to_owned()));
        }
        if warm.logits != cold.logits {
            return Ok(Some(differs("the device", &warm)));
        }
        self.run(&other)?;
        let again = self.run(&one)?;
        Ok((again.logits != cold.logits).then(|| differs("the host", &again)))
    }

    fn prompt(&self, seed: u32, vocab_size: u32) -> Vec<u32> {
        let length = self.limits.block_size + BOUNDARY + REST;
        (0..length).map(|at| (at * 37 + seed) % vocab_size).collect()
    }

    /// Runs a prompt and [`GENERATED`] tokens that do not depend on what the model says.
    fn run(&mut self, prompt: &[u32]) -> Result<Run, Fault> {
        let new = NewRequest {
            id: 0,
            prompt: prompt.to_vec(),
            answered: Vec::new(),
            max_tokens: GENERATED,
            stop_tokens: Vec::new(),
            boundaries: vec![self.limits.block_size + BOUNDARY],
            isolation: 0,
        };
        self.scheduler.add(new).map_err(|why| Fault(format!("the cache's proof: {why:?}")))?;
        let mut run = Run { cached_tokens: 0, logits: Vec::new() };
        while let Some(plan) = self.scheduler.schedule() {
            self.follow(&plan);
            self.steps.forward(&step_work(&plan))?;
            run.cached_tokens += plan.admitted.iter().map(|a| a.cached_tokens).sum::<u32>();
            let rows = plan.entries.iter().filter(|entry| entry.sample).count();
            run.logits.extend(self.steps.logits(rows).into_iter().map(f32::to_bits));
            self.scheduler.apply(&plan, &vec![Sampled::Token(prompt[0]); rows]);
        }
        Ok(run)
    }

    fn follow(&mut self, plan: &StepPlan) {
        for copy in &plan.copies {
            match copy {
                Copy::SaveBlock { item, .. } | Copy::SaveState { item, .. } => {
                    self.on_host.push(*item);
                }
                Copy::Forget { item } => self.on_host.retain(|known| known != item),
                _ => {}
            }
        }
    }

    /// Host memory that the engine's own scheduler would know nothing of.
    fn clear(&mut self) -> Result<(), Fault> {
        let items = std::mem::take(&mut self.on_host);
        let copies = items.into_iter().map(|item| Copy::Forget { item }).collect();
        self.steps.forward(&StepWork { copies, inputs: kernels::StepInputs::default() })
    }
}

fn differs(tier: &str, warm: &Run) -> String {
    format!(
        "the proof at load failed: with {} tokens out of the cache on {tier} the model computed \
         other logits than without",
        warm.cached_tokens
    )
}

#[cfg(test)]
mod tests;
