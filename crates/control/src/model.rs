//! `GET /models` of a neuron, and the plan of a load.

use serde::{Deserialize, Serialize};

/// Where a model is in its life on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelStatus {
    /// Known by configuration, not loaded.
    Absent,
    /// Its files are on their way.
    Downloading,
    /// Its engine child is starting.
    Loading,
    /// It answers.
    Ready,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// Its load was given up.
    Failed,
    /// Its engine child died and is being started again.
    Restarting,
}

/// Token limits of a model as it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Prompt and answer together.
    pub context: u32,
    /// Answer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u32>,
}

/// How far a load has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of weights in place.
    pub done_bytes: u64,
    /// Bytes of weights in all.
    pub total_bytes: u64,
}

/// One model on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The id under which it is served.
    pub id: String,
    /// What runs it.
    pub harness: String,
    /// See [`ModelStatus`].
    pub status: ModelStatus,
    /// GPU indices; empty on the CPU.
    #[serde(default)]
    pub devices: Vec<u32>,
    /// Ranks that share it.
    #[serde(default = "one")]
    pub world_size: u32,
    /// The weights' format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<String>,
    /// Device memory that it holds, in MiB.
    #[serde(default)]
    pub vram_used_mb: u64,
    /// Main memory that it was given, in MiB, when it runs on the CPU.
    #[serde(default)]
    pub host_used_mb: u64,
    /// Base URL of its inference routes, when it can answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What callers may rely on: `chat`, `tools`, `reasoning`, `embeddings`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// See [`Limit`].
    #[serde(default)]
    pub limit: Limit,
    /// Dialects that its endpoint speaks.
    #[serde(default)]
    pub dialects: Vec<String>,
    /// While loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// After a failure: what, where and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The engine child's process id, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What makes it faster where that can be had, on or off; known once it is loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fast_paths: Vec<FastPath>,
    /// Digests of the beginnings of prompts that it computed last, each of 53 bits, so that every
    /// reader of JSON keeps them whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix_digests: Vec<u64>,
}

/// Something that makes a model faster without changing what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastPath {
    /// Its name, for example `prefix_cache`.
    pub name: String,
    /// Whether it is in use.
    pub on: bool,
    /// Why it is not, or what it takes.
    pub detail: String,
}

fn one() -> u32 {
    1
}

/// What a load takes, before anything is allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadPlan {
    /// One entry a rank.
    pub ranks: Vec<RankPlan>,
    /// Whether every rank has that much free.
    pub fits: bool,
    /// The format that the weights will have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<String>,
    /// Tokens of context that the plan serves.
    pub context: u32,
    /// Requests that can run together.
    pub max_running: u32,
    /// All ranks' bytes together.
    #[serde(default)]
    pub needed_bytes: u64,
    /// Bytes that are free, before the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Main memory that the prefix cache may fill, of all ranks.
    #[serde(default)]
    pub host_cache_bytes: u64,
    /// Whether all of it is main memory: the model runs on the CPU.
    #[serde(default)]
    pub is_on_host: bool,
}

/// One rank's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankPlan {
    /// Weights as the backend keeps them.
    pub weight_bytes: u64,
    /// KV blocks.
    pub kv_bytes: u64,
    /// Recurrent state slots.
    pub state_bytes: u64,
    /// Activations of the largest step.
    pub workspace_bytes: u64,
    /// Captured graphs.
    pub graph_bytes: u64,
}
