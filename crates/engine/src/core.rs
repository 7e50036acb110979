//! The loop: `schedule -> StepPlan -> step -> apply`.

use std::collections::HashMap;

use scheduler::{NewRequest, Occupancy, Refused, Sampled, Scheduler, StepPlan, Update};

use crate::contract::{
    End, EngineInfo, Fault, Gauges, Refusal, RequestId, Started, StepReport, TokenEngine,
    TokenRequest, TokenUpdate,
};
use crate::executor::Execute;
use crate::inputs::{checkpoint_positions, step_work};
use crate::sampler::RequestSampler;

/// An engine with its model loaded.
pub struct Engine {
    info: EngineInfo,
    scheduler: Scheduler,
    executor: Box<dyn Execute>,
    samplers: HashMap<RequestId, LiveRequest>,
}

struct LiveRequest {
    sampler: RequestSampler,
    started: bool,
}

impl Engine {
    pub(crate) fn new(info: EngineInfo, scheduler: Scheduler, executor: Box<dyn Execute>) -> Self {
        Self { info, scheduler, executor, samplers: HashMap::new() }
    }

    fn check(&self, request: &TokenRequest) -> Result<(), Refusal> {
        let vocab = self.info.vocab_size;
        match request.prompt.iter().find(|token| **token >= vocab) {
            Some(token) => {
                Err(Refusal::Invalid(format!("token {token} is not below the vocabulary {vocab}")))
            }
            None => Ok(()),
        }
    }

    /// Marks the requests that a plan works on for the first time.
    fn started(&mut self, plan: &StepPlan) -> Vec<Started> {
        let mut started = Vec::new();
        for admitted in &plan.admitted {
            if let Some(live) = self.samplers.get_mut(&admitted.request)
                && !live.started
            {
                live.started = true;
                started.push(Started {
                    id: admitted.request,
                    cached_tokens: admitted.cached_tokens,
                    diverged_at: admitted.diverged_at,
                });
            }
        }
        started
    }

    fn book(&mut self, update: &Update) -> TokenUpdate {
        if let (Some(token), Some(live)) = (update.token, self.samplers.get_mut(&update.request)) {
            live.sampler.accept(token);
        }
        if update.end.is_some() {
            self.samplers.remove(&update.request);
        }
        TokenUpdate {
            id: update.request,
            tokens: update.token.into_iter().collect(),
            end: update.end.map(|end| match end {
                scheduler::End::Stop => End::Stop,
                scheduler::End::Length => End::Length,
                scheduler::End::NotFinite => End::NotFinite,
            }),
        }
    }
}

impl TokenEngine for Engine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn submit(&mut self, request: TokenRequest) -> Result<(), Refusal> {
        self.check(&request)?;
        let sampler = RequestSampler::new(&request);
        let (id, prompt, max_tokens) =
            (request.id, request.prompt.len() as u32, request.max_tokens);
        let new = NewRequest {
            id,
            max_tokens,
            stop_tokens: request.stop_tokens,
            boundaries: checkpoint_positions(&request.boundaries, prompt),
            isolation: request.isolation,
            prompt: request.prompt,
        };
        self.scheduler.add(new).map_err(|refused| match refused {
            Refused::TooLong { limit } => Refusal::TooLong { prompt, max_tokens, context: limit },
            Refused::QueueFull { waiting } => Refusal::QueueFull { waiting },
            Refused::Invalid(reason) => Refusal::Invalid(reason.to_owned()),
        })?;
        self.samplers.insert(id, LiveRequest { sampler, started: false });
        Ok(())
    }

    fn abort(&mut self, id: RequestId) {
        self.scheduler.abort(id);
        self.samplers.remove(&id);
    }

    fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    fn gauges(&self) -> Gauges {
        let Occupancy { running, waiting, kv_blocks_free, state_slots_free } =
            self.scheduler.occupancy();
        let cache = self.scheduler.cache_counts().into();
        Gauges { running, waiting, kv_blocks_free, state_slots_free, cache }
    }

    fn step(&mut self) -> Result<StepReport, Fault> {
        let Some(plan) = self.scheduler.schedule() else {
            return Ok(StepReport { gauges: self.gauges(), ..StepReport::default() });
        };
        let started = self.started(&plan);
        let sampling = plan.entries.iter().filter(|entry| entry.sample);
        let rows: Vec<_> = sampling
            .map(|entry| {
                let position = u64::from(entry.start) + entry.tokens.len() as u64;
                self.samplers[&entry.request].sampler.row(position)
            })
            .collect();
        self.executor.forward(&step_work(&plan))?;
        let chosen = self.executor.sample(&rows)?;
        let sampled: Vec<_> = chosen
            .into_iter()
            .map(|choice| choice.map_or(Sampled::NotFinite, |choice| Sampled::Token(choice.token)))
            .collect();
        let updates = self.scheduler.apply(&plan, &sampled);
        let updates: Vec<_> = updates.iter().map(|update| self.book(update)).collect();
        let decoded = plan.entries.iter().filter(|entry| entry.sample).count() as u32;
        Ok(StepReport {
            started,
            updates,
            prefill_tokens: plan.tokens() - decoded,
            decode_tokens: decoded,
            step_micros: 0,
            gauges: self.gauges(),
        })
    }
}
