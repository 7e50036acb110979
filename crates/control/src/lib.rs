//! What cortex and neuron say to each other about nodes and models.
//!
//! Every type accepts unknown fields, so that versions can be mixed in a rolling upgrade.
#![forbid(unsafe_code)]

mod command;
mod model;
mod node;

pub use command::{EndpointReply, LoadReply, LoadRequest, UnloadReply, UnloadRequest};
pub use model::{Limit, LoadPlan, ModelReport, ModelStatus, Progress, RankPlan};
pub use node::{
    Activation, ActivationState, Cpu, Device, DeviceHealth, Discovery, Health, HealthStatus,
    HostMemory, ModelHealth,
};
