//! `GET /discovery` and `GET /health` of a neuron.

use serde::{Deserialize, Serialize};

/// The hardware and software of a host: `GET /discovery`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// The host's own name.
    pub hostname: String,
    /// The operating system.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// The daemon's version.
    pub version: String,
    /// The highest CUDA version that the driver supports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_version: Option<String>,
    /// The driver's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// GPUs; empty on a host without one.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// The processor.
    #[serde(default)]
    pub cpu: Cpu,
    /// What can run models here.
    #[serde(default)]
    pub harnesses: Vec<String>,
    /// Why no GPU is used, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_unavailable_reason: Option<String>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Counts from 0, as CUDA does.
    pub index: u32,
    /// As the driver names it.
    pub name: String,
    /// Stable over reboots.
    pub uuid: String,
    /// All its memory, in MiB.
    pub vram_total_mb: u64,
    /// For example `9.0`.
    pub compute_capability: String,
    /// The NUMA node that it hangs off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// Devices that it can reach directly.
    #[serde(default)]
    pub peers: Vec<u32>,
}

/// The processor and main memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// As the kernel names it.
    pub model: String,
    /// Cores that the daemon may use.
    pub cores: u32,
    /// All main memory, in MiB.
    pub memory_mb: u64,
}

/// How a node feels: `GET /health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Since the daemon started.
    pub uptime_secs: u64,
    /// See [`HealthStatus`].
    pub status: HealthStatus,
    /// One entry a GPU.
    #[serde(default)]
    pub devices: Vec<DeviceHealth>,
    /// What models may take of main memory; said by hosts whose models run on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_memory: Option<HostMemory>,
    /// One entry a model that is loaded or on its way.
    #[serde(default)]
    pub models: Vec<ModelHealth>,
    /// The models that the configuration asks for.
    #[serde(default)]
    pub activation: Activation,
}

/// Main memory for models, in MiB: the machine's, or what the daemon's limits leave of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMemory {
    /// With nothing loaded.
    pub total_mb: u64,
    /// Now.
    pub free_mb: u64,
}

/// Whether the daemon can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It can.
    Ok,
    /// It shuts down or cannot serve; answered with 503.
    Unavailable,
}

/// A GPU's gauges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceHealth {
    /// As in [`Device::index`].
    pub index: u32,
    /// Memory in use, in MiB.
    pub vram_used_mb: u64,
    /// Memory free, in MiB.
    pub vram_free_mb: u64,
    /// Share of time with a kernel running.
    pub utilization_pct: u32,
    /// Degrees Celsius.
    pub temp_c: u32,
    /// Watts.
    pub power_w: u32,
}

/// A model's gauges, read without touching its engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelHealth {
    /// The model's id.
    pub id: String,
    /// Requests that took part in the last step.
    pub running: u32,
    /// Requests admitted but not yet begun.
    pub waiting: u32,
    /// KV blocks that no request holds.
    pub kv_blocks_free: u32,
    /// All KV blocks.
    pub kv_blocks_total: u32,
    /// Recurrent state slots that no request holds.
    pub state_slots_free: u32,
    /// All recurrent state slots.
    #[serde(default)]
    pub state_slots_total: u32,
    /// Prompt tokens a second, over the last seconds with work.
    pub tok_s_prefill: f64,
    /// Generated tokens a second, over the last seconds with work.
    pub tok_s_decode: f64,
    /// Since the last step ended; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_step_ms_ago: Option<u64>,
    /// Times that the engine child was started again after it died.
    #[serde(default)]
    pub restarts: u32,
    /// Prompt tokens that the prefix cache was asked for since the engine child started.
    #[serde(default)]
    pub prefix_looked_up_tokens: u64,
    /// Prompt tokens of them that it supplied.
    #[serde(default)]
    pub prefix_hit_tokens: u64,
}

/// How far the configured models have come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Activation {
    /// The whole.
    pub state: ActivationState,
    /// Not begun.
    pub pending: Vec<String>,
    /// Loading now.
    pub in_progress: Vec<String>,
    /// Ready.
    pub completed: Vec<String>,
    /// Given up, with the reason in `GET /models`.
    pub failed: Vec<String>,
}

/// See [`Activation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationState {
    /// Something is pending or in progress.
    Activating,
    /// Nothing is left to do.
    #[default]
    Done,
}
