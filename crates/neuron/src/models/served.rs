//! What everybody may know of a model without asking its supervisor or its engine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use control::{Limit, LoadPlan, LoadRequest, ModelHealth, ModelReport, ModelStatus, Progress};
use engine::{Device, EngineInfo};

use crate::child::native;
use crate::models::gauges::{RequestCounts, StepCounts};
use crate::models::live::Live;
use crate::source::assets::Assets;

/// The name of the harness that runs models in engine children.
pub(crate) const NATIVE: &str = "native";

/// A model that is configured, loaded or on its way.
#[derive(Debug)]
pub(crate) struct Served {
    /// The id under which it is served.
    pub(crate) id: String,
    /// Its requests.
    pub(crate) live: Arc<Live>,
    view: Mutex<View>,
    /// What it computed last, the latest last.
    prefixes: Mutex<VecDeque<u64>>,
}

/// Beginnings of prompts that are remembered.
const PREFIXES: usize = 128;
/// Of one prompt so many, the longest: the next turn of its conversation begins like one of them.
const PREFIXES_OF_ONE: usize = 4;

/// Memory that a load will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Where.
    pub(crate) device: Device,
    /// How much of it.
    pub(crate) bytes: u64,
}

/// The published part of a model's state; the supervisor writes, everybody reads.
#[derive(Debug)]
pub(crate) struct View {
    /// See [`ModelStatus`].
    pub(crate) status: ModelStatus,
    /// While loading.
    pub(crate) progress: Option<Progress>,
    /// What the engine loaded.
    pub(crate) info: Option<EngineInfo>,
    /// Tokenizer and template.
    pub(crate) assets: Option<Assets>,
    /// What its steps did.
    pub(crate) steps: StepCounts,
    /// How its requests ended.
    pub(crate) requests: RequestCounts,
    /// Times that the engine was started again.
    pub(crate) restarts: u32,
    /// The engine's process.
    pub(crate) pid: Option<u32>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// How it was asked for.
    pub(crate) request: LoadRequest,
    /// What a load was granted, until it is known what it took.
    pub(crate) granted: Option<Grant>,
}

impl Served {
    /// A model that is not loaded.
    pub(crate) fn new(request: LoadRequest) -> Self {
        Self {
            id: request.model_id.clone(),
            live: Arc::default(),
            prefixes: Mutex::default(),
            view: Mutex::new(View {
                status: ModelStatus::Absent,
                progress: None,
                info: None,
                assets: None,
                steps: StepCounts::default(),
                requests: RequestCounts::default(),
                restarts: 0,
                pid: None,
                error: None,
                request,
                granted: None,
            }),
        }
    }

    /// The state; the lock is held for moments only.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A prompt that begins like this is computed here.
    pub(crate) fn remember(&self, beginnings: &[wire::Beginning]) {
        let mut prefixes = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = beginnings.len().saturating_sub(PREFIXES_OF_ONE);
        for (digest, _) in &beginnings[longest..] {
            prefixes.retain(|known| known != digest);
            prefixes.push_back(*digest);
        }
        let over = prefixes.len().saturating_sub(PREFIXES);
        prefixes.drain(..over);
    }

    /// The engine that computed them is gone, and the next one holds nothing.
    pub(crate) fn forget(&self) {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Digests of what the prefix cache may hold.
    fn prefix_digests(&self) -> Vec<u64> {
        let prefixes = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        prefixes.iter().copied().collect()
    }

    /// Its entry of `GET /models`; `base_url` is where this node answers.
    pub(crate) fn report(&self, base_url: &str) -> ModelReport {
        let view = self.view();
        let ready = view.status == ModelStatus::Ready;
        let info = view.info.as_ref();
        let card = info.and_then(|info| match info.device {
            Device::Cpu => None,
            Device::Cuda(card) => Some(card),
        });
        ModelReport {
            id: self.id.clone(),
            harness: NATIVE.to_owned(),
            status: view.status,
            devices: card.into_iter().collect(),
            world_size: info.map_or(1, |info| info.ranks.len().max(1) as u32),
            quant: info.map(|info| info.quant.clone()).or_else(|| view.request.quant.clone()),
            vram_used_mb: info.filter(|_| card.is_some()).map_or(0, native::bytes) >> 20,
            host_used_mb: if card.is_none() { view.held_mb() } else { 0 },
            prefix_digests: self.prefix_digests(),
            endpoint: ready.then(|| base_url.to_owned()),
            capabilities: view.assets.as_ref().map_or_else(Vec::new, |a| a.capabilities()),
            limit: Limit { context: info.map_or(0, |info| info.context), output: None },
            dialects: wire::Dialect::ALL.iter().map(|dialect| dialect.name().to_owned()).collect(),
            progress: view.progress,
            error: view.error.clone(),
            pid: view.pid,
            fast_paths: info.map_or_else(Vec::new, native::fast_paths),
        }
    }

    /// Its entry of `GET /health`.
    pub(crate) fn health(&self, now: Instant) -> ModelHealth {
        let view = self.view();
        let (steps, info) = (&view.steps, view.info.as_ref());
        ModelHealth {
            id: self.id.clone(),
            running: steps.gauges.running,
            waiting: steps.gauges.waiting,
            kv_blocks_free: steps.gauges.kv_blocks_free,
            kv_blocks_total: info.map_or(0, |info| info.kv_blocks),
            state_slots_free: steps.gauges.state_slots_free,
            state_slots_total: info.map_or(0, |info| info.state_slots),
            tok_s_prefill: steps.prefill.per_second(),
            tok_s_decode: steps.decode.per_second(),
            last_step_ms_ago: steps
                .last_step
                .map(|at| now.saturating_duration_since(at).as_millis() as u64),
            restarts: view.restarts,
            prefix_looked_up_tokens: steps.gauges.cache.looked_up_tokens,
            prefix_hit_tokens: {
                let hits = steps.gauges.cache.hit_tokens;
                hits.device + hits.host
            },
        }
    }
}

impl View {
    /// What the load took, once it is done.
    pub(crate) fn plan(&self) -> Option<LoadPlan> {
        self.info.as_ref().map(|info| native::load_plan(info, true))
    }

    /// Main memory that it has or was granted.
    pub(crate) fn host_bytes(&self) -> u64 {
        match &self.info {
            Some(info) if info.device == Device::Cpu => native::bytes(info),
            Some(_) => 0,
            None => self.granted.filter(|it| it.device == Device::Cpu).map_or(0, |it| it.bytes),
        }
    }

    /// The card that it is on its way to, and what it will take there. Of one that answers or
    /// drains the driver knows, and counts it itself.
    pub(crate) fn promised_of_card(&self) -> Option<(u32, u64)> {
        let loaded = self.info.as_ref().map(|info| (info.device, native::bytes(info)));
        let granted = self.granted.map(|it| (it.device, it.bytes));
        match (self.status, loaded.or(granted)?) {
            (ModelStatus::Ready | ModelStatus::Draining, _) | (_, (Device::Cpu, _)) => None,
            (_, (Device::Cuda(card), bytes)) => Some((card, bytes)),
        }
    }

    /// Memory that the engine holds, in MiB.
    pub(crate) fn held_mb(&self) -> u64 {
        let bytes = self.info.as_ref().map_or(0, native::bytes);
        bytes.div_ceil(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Served {
        Served::new(LoadRequest { model_id: "a".into(), ..LoadRequest::default() })
    }

    #[test]
    fn what_an_engine_computed_dies_with_it() {
        let served = served();
        let digests: Vec<_> = (0..6).map(|digest| (digest, 0)).collect();
        served.remember(&digests);
        assert_eq!(served.report("http://n").prefix_digests, [2, 3, 4, 5], "the longest four");
        served.remember(&digests[..3]);
        assert_eq!(served.report("http://n").prefix_digests, [3, 4, 5, 0, 1, 2]);
        served.forget();
        assert!(served.report("http://n").prefix_digests.is_empty());
    }

    #[test]
    fn a_card_is_promised_until_the_driver_counts_it() {
        let served = served();
        let promised = |status| {
            let mut view = served.view();
            view.status = status;
            view.promised_of_card()
        };
        assert_eq!(promised(ModelStatus::Loading), None);
        served.view().granted = Some(Grant { device: Device::Cuda(1), bytes: 7 });
        assert_eq!(promised(ModelStatus::Absent), Some((1, 7)));
        assert_eq!(promised(ModelStatus::Loading), Some((1, 7)));
        assert_eq!(promised(ModelStatus::Ready), None);
        assert_eq!(served.view().host_bytes(), 0);
        served.view().granted = Some(Grant { device: Device::Cpu, bytes: 7 });
        assert_eq!(promised(ModelStatus::Loading), None);
        assert_eq!(served.view().host_bytes(), 7);
    }
}
