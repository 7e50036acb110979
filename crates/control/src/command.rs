//! `POST /models/load`, `POST /models/unload` and `GET /models/{id}/endpoint` of a neuron.

use serde::{Deserialize, Serialize};

use crate::LoadPlan;

/// The body of `POST /models/load`; also an entry of `[[default_models]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// The id under which the model is served.
    pub model_id: String,
    /// What runs it; the native engine by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<String>,
    /// The weights' format, where a source offers several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<String>,
    /// Ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor_parallel: Option<u32>,
    /// GPU indices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<u32>>,
    /// Tokens of context; the model's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// Requests that run together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_running: Option<u32>,
    /// A directory or a file on the node; the id is looked up by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Answer only when the model is ready (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
}

/// The answer to a load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReply {
    /// `loaded`, `loading` when the caller did not wait, or `planned` when nothing was to be done.
    pub status: String,
    /// What the load takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<LoadPlan>,
    /// From the request to readiness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u64>,
}

/// The body of `POST /models/unload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloadRequest {
    /// The model.
    pub model_id: String,
    /// How long running requests may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_secs: Option<u64>,
}

/// The answer to an unload, sent once the memory is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloadReply {
    /// `unloaded`.
    pub status: String,
    /// Device memory, or on the CPU main memory, that came back.
    pub freed_mb: u64,
}

/// The answer of `GET /models/{id}/endpoint`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReply {
    /// Base URL of the inference routes, without a trailing slash.
    pub url: String,
}
