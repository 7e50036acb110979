//! The fleet as an operator sees it: `GET /admin/fleet`, and what `cortex status` prints.

use control::ModelStatus;
use fleet::{Node, Standing, Tick};
use serde::{Deserialize, Serialize};

use crate::app::App;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FleetView {
    pub version: String,
    pub uptime_secs: u64,
    pub nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeView {
    pub name: String,
    pub endpoint: String,
    pub status: String,
    pub seen_ms_ago: Option<u64>,
    pub missed_polls: u32,
    pub fault: Option<String>,
    /// Requests that this gateway has open there.
    pub in_flight: u32,
    /// The operator drains it.
    #[serde(default)]
    pub is_drained: bool,
    /// It failed requests of late.
    #[serde(default)]
    pub is_suspect: bool,
    /// Main memory for models, on a host without devices.
    #[serde(default)]
    pub memory_free_mb: Option<u64>,
    #[serde(default)]
    pub memory_total_mb: Option<u64>,
    pub hostname: Option<String>,
    pub cpu_cores: Option<u32>,
    pub devices: Vec<DeviceView>,
    pub models: Vec<ModelView>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeviceView {
    pub index: u32,
    pub name: Option<String>,
    pub vram_used_mb: u64,
    pub vram_free_mb: u64,
    pub utilization_pct: u32,
    pub temp_c: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ModelView {
    pub id: String,
    pub status: String,
    pub harness: String,
    pub context: u32,
    pub running: u32,
    pub waiting: u32,
    pub kv_blocks_free: u32,
    pub kv_blocks_total: u32,
    pub tok_s_decode: f64,
    /// Share of the prompt tokens that the prefix cache supplied; absent before the first.
    pub prefix_hit_rate: Option<f64>,
    pub error: Option<String>,
    /// While loading.
    #[serde(default)]
    pub progress: Option<control::Progress>,
}

/// The fleet now.
pub(crate) fn fleet(app: &App) -> FleetView {
    let (snapshot, now) = (app.fleet.load(), app.now());
    let front = app.front();
    let view = |(place, node): (usize, &std::sync::Arc<Node>)| {
        let in_flight = front.open.get(place).copied().unwrap_or(0);
        let is_suspect = front.outliers.suspects(place, node, now);
        let is_drained = front.desk.is_drained(place);
        (!node.is_removed).then(|| NodeView {
            is_suspect,
            is_drained,
            ..node_view(node, in_flight, now)
        })
    };
    let nodes = snapshot.nodes.iter().enumerate();
    FleetView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_secs: now.0 / 1000,
        nodes: nodes.filter_map(view).collect(),
    }
}

fn node_view(node: &Node, in_flight: u32, now: Tick) -> NodeView {
    let report = node.report.as_deref();
    let discovery = report.and_then(|report| report.discovery.as_deref());
    let gauges = report.map_or(&[][..], |report| &report.health.devices);
    let memory = report.and_then(|report| report.health.host_memory.as_ref());
    let device = |gauge: &control::DeviceHealth| DeviceView {
        index: gauge.index,
        name: discovery
            .and_then(|d| d.devices.iter().find(|device| device.index == gauge.index))
            .map(|device| device.name.clone()),
        vram_used_mb: gauge.vram_used_mb,
        vram_free_mb: gauge.vram_free_mb,
        utilization_pct: gauge.utilization_pct,
        temp_c: gauge.temp_c,
    };
    NodeView {
        name: node.name.clone(),
        endpoint: node.endpoint.clone(),
        status: standing_word(node.standing(now)).to_owned(),
        seen_ms_ago: node.seen.map(|seen| now.since_ms(seen)),
        missed_polls: node.missed,
        fault: node.fault.clone(),
        in_flight,
        is_drained: false,
        is_suspect: false,
        memory_free_mb: memory.map(|memory| memory.free_mb),
        memory_total_mb: memory.map(|memory| memory.total_mb),
        hostname: discovery.map(|d| d.hostname.clone()),
        cpu_cores: discovery.map(|d| d.cpu.cores),
        devices: gauges.iter().map(device).collect(),
        models: node.models().iter().map(|model| model_view(node, model)).collect(),
    }
}

fn model_view(node: &Node, model: &control::ModelReport) -> ModelView {
    let gauges = node.gauges(&model.id).cloned().unwrap_or_default();
    ModelView {
        id: model.id.clone(),
        status: model_word(model.status).to_owned(),
        harness: model.harness.clone(),
        context: model.limit.context,
        running: gauges.running,
        waiting: gauges.waiting,
        kv_blocks_free: gauges.kv_blocks_free,
        kv_blocks_total: gauges.kv_blocks_total,
        tok_s_decode: gauges.tok_s_decode,
        prefix_hit_rate: (gauges.prefix_looked_up_tokens > 0)
            .then(|| gauges.prefix_hit_tokens as f64 / gauges.prefix_looked_up_tokens as f64),
        error: model.error.clone(),
        progress: model.progress,
    }
}

pub(crate) fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Unseen => "unseen",
        Standing::Alive => "ok",
        Standing::Unavailable => "unavailable",
        Standing::Lost => "lost",
        Standing::Removed => "removed",
    }
}

pub(crate) fn model_word(status: ModelStatus) -> &'static str {
    match status {
        ModelStatus::Absent => "absent",
        ModelStatus::Downloading => "downloading",
        ModelStatus::Loading => "loading",
        ModelStatus::Ready => "ready",
        ModelStatus::Draining => "draining",
        ModelStatus::Failed => "failed",
        ModelStatus::Restarting => "restarting",
    }
}
