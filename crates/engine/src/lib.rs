//! Tokens in, tokens out: an engine that runs models, and the contract with whoever drives it.
//!
//! Text, chat templates and dialects live outside. An engine is driven by one thread that owns it:
//! submit and abort between steps, then [`TokenEngine::step`], which advances every running
//! request and reports what came of it. The loop is `schedule -> StepPlan -> step -> apply`:
//! plans and outputs are plain data, everything above them runs without a device.
#![forbid(unsafe_code)]

mod cache;
mod contract;
mod core;
mod executor;
mod host;
mod inputs;
mod load;
mod probe;
mod rank;
mod sampler;

pub use cache::{ByTier, CacheCounts, PrefixCacheInfo};
pub use contract::{
    Device, End, EngineInfo, EngineSpec, Fault, Gauges, RankBytes, Refusal, RequestId, Sampling,
    Started, StepReport, TokenEngine, TokenRequest, TokenUpdate,
};
pub use core::Engine;
pub use load::{LoadError, load, plan};
