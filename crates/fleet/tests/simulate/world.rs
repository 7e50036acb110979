//! The nodes as they really are.

use std::collections::BTreeMap;

use control::{DeviceHealth, Health, HealthStatus, ModelHealth, ModelReport, ModelStatus};
use fleet::{Catalogue, NodeReport, Profile};

use crate::draws::Draws;

/// A model on a node.
#[derive(Clone, Debug)]
pub(crate) struct Resident {
    pub(crate) status: ModelStatus,
    pub(crate) devices: Vec<u32>,
    /// What the catalogue says that it takes of each.
    pub(crate) said_each: u64,
    /// What it really takes of each.
    pub(crate) mb_each: u64,
    /// Requests of clients that this gateway knows nothing of.
    pub(crate) foreign: u32,
    /// Requests that came through the gateway.
    pub(crate) open: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SimNode {
    pub(crate) device_mb: Vec<u64>,
    pub(crate) models: BTreeMap<String, Resident>,
    pub(crate) is_dead: bool,
    pub(crate) is_hung: bool,
    pub(crate) is_disk_full: bool,
    /// When it last answered a poll.
    pub(crate) answered: u64,
}

impl SimNode {
    pub(crate) fn answers(&self) -> bool {
        !self.is_dead && !self.is_hung
    }

    /// MiB of a device that nothing has.
    pub(crate) fn free_mb(&self, device: u32) -> u64 {
        let holds = self.models.values().filter(|model| model.devices.contains(&device));
        let used: u64 = holds.map(|model| model.mb_each).sum();
        self.device_mb[device as usize].saturating_sub(used)
    }

    /// It starts anew, with nothing loaded.
    pub(crate) fn restart(&mut self) {
        self.models.clear();
        self.is_dead = false;
    }

    pub(crate) fn report(&self) -> NodeReport {
        let devices = (0..self.device_mb.len() as u32).map(|index| {
            let vram_free_mb = self.free_mb(index);
            let vram_used_mb = self.device_mb[index as usize] - vram_free_mb;
            DeviceHealth { index, vram_used_mb, vram_free_mb, ..DeviceHealth::default() }
        });
        let gauges = self.models.iter().map(|(id, model)| ModelHealth {
            id: id.clone(),
            running: model.open + model.foreign,
            ..ModelHealth::default()
        });
        let health = Health {
            uptime_secs: 1,
            status: HealthStatus::Ok,
            devices: devices.collect(),
            host_memory: None,
            models: gauges.collect(),
            activation: control::Activation::default(),
        };
        let models = self.models.iter().map(|(id, model)| model_report(id, model)).collect();
        NodeReport { health, models, discovery: None }
    }
}

fn model_report(id: &str, model: &Resident) -> ModelReport {
    ModelReport {
        id: id.to_owned(),
        harness: "native".to_owned(),
        status: model.status,
        devices: model.devices.clone(),
        world_size: model.devices.len() as u32,
        quant: None,
        vram_used_mb: model.mb_each * model.devices.len() as u64,
        endpoint: (model.status == ModelStatus::Ready).then(|| format!("http://node/{id}")),
        capabilities: Vec::new(),
        limit: control::Limit::default(),
        dialects: Vec::new(),
        progress: None,
        error: None,
        pid: None,
        fast_paths: Vec::new(),
        host_used_mb: 0,
        prefix_digests: Vec::new(),
    }
}

/// 2 to 40 nodes of 1 to 4 devices.
pub(crate) fn nodes(draws: &mut Draws) -> Vec<SimNode> {
    let count = 2 + draws.skewed(39);
    let node = |draws: &mut Draws| {
        let size = 24 * (1 + draws.below(4));
        let devices = 1 + draws.skewed(4);
        SimNode { device_mb: vec![size; devices as usize], ..SimNode::default() }
    };
    (0..count).map(|_| node(draws)).collect()
}

pub(crate) fn node_name(place: usize) -> String {
    format!("node-{place}")
}

/// Three to twelve models, some pinned, some resident, some on two devices, some idle away.
pub(crate) fn catalogue(draws: &mut Draws, nodes: usize) -> Catalogue {
    let profile = |draws: &mut Draws, number: u64| Profile {
        world_size: draws.one_in(5).then_some(2),
        residency_priority: draws.below(3) as i32,
        idle_unload_ms: draws.one_in(4).then(|| 10_000 + draws.below(20_000)),
        residents: u32::from(draws.one_in(5)),
        pinned_on: match draws.below(6) {
            0 => vec![node_name(draws.below(nodes as u64) as usize)],
            _ => Vec::new(),
        },
        ..Profile::sized(format!("model-{number}"), 8 + draws.below(60))
    };
    let count = 3 + draws.below(10);
    let profiles = (0..count).map(|number| profile(draws, number));
    Catalogue {
        models: profiles.map(|profile| (profile.id.clone(), profile)).collect(),
        aliases: BTreeMap::new(),
    }
}
