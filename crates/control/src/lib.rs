//! What cortex and neuron say to each other about nodes and models.
//!
//! Every type accepts unknown fields, so that versions can be mixed in a rolling upgrade.
#![forbid(unsafe_code)]

/// Whose request this is, on requests from cortex to a neuron. cortex makes the value and takes out
/// whatever a client has put there.
pub const IDENTITY_HEADER: &str = "x-cortex-identity";

/// Asks a neuron to mark what it streams: each piece is followed by a comment with its token ids.
pub const MARKS_HEADER: &str = "x-cortex-marks";

/// On a marked answer: what another neuron has to know besides the ids to go on with it. Empty
/// where nobody can.
pub const STAMP_HEADER: &str = "x-cortex-stamp";

/// How many bytes of a request's body are the client's; the rest is what an earlier neuron said so
/// far: `{"stamp":S,"batches":[[ID,...],...]}`.
pub const RESUME_HEADER: &str = "x-cortex-resume";

/// On requests from cortex to a neuron: streams are to tell what they use, in comments, even where
/// their client has not asked for it.
pub const USAGE_HEADER: &str = "x-cortex-usage";

mod command;
mod model;
mod node;

pub use command::{EndpointReply, LoadReply, LoadRequest, UnloadReply, UnloadRequest};
pub use model::{FastPath, Limit, LoadPlan, ModelReport, ModelStatus, Progress, RankPlan};
pub use node::{
    Activation, ActivationState, Cpu, Device, DeviceHealth, Discovery, Health, HealthStatus,
    HostMemory, ModelHealth,
};
