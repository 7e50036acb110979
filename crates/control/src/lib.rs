//! What cortex and neuron say to each other about nodes and models.
//!
//! Every type accepts unknown fields, so that versions can be mixed in a rolling upgrade.
#![forbid(unsafe_code)]

/// Whose request this is, on requests from cortex to a neuron. cortex makes the value and takes out
/// whatever a client has put there.
pub const IDENTITY_HEADER: &str = "x-cortex-identity";

mod command;
mod model;
mod node;

pub use command::{EndpointReply, LoadReply, LoadRequest, UnloadReply, UnloadRequest};
pub use model::{FastPath, Limit, LoadPlan, ModelReport, ModelStatus, Progress, RankPlan};
pub use node::{
    Activation, ActivationState, Cpu, Device, DeviceHealth, Discovery, Health, HealthStatus,
    HostMemory, ModelHealth,
};
