//! Tokens in, tokens out: an engine that runs models, and the contract with whoever drives it.
//!
//! Text, chat templates and dialects live outside. An engine is driven by one thread that owns it:
//! submit and abort between steps, then [`TokenEngine::step`], which advances every running
//! request and reports what came of it. The loop is `schedule -> StepPlan -> step -> apply`:
//! plans and outputs are plain data, everything above them runs without a device.
#![forbid(unsafe_code)]

mod ahead;
mod cache;
mod contract;
mod core;
mod error;
mod executor;
mod grammar;
mod host;
mod inputs;
mod live;
mod load;
mod mask;
mod masks;
mod pace;
mod part_limit;
mod pooling;
mod probe;
mod rank;
mod room;
mod sampler;
mod timing;

pub use cache::{ByTier, CacheCounts, PrefixCacheInfo};
pub use contract::{
    Admission, Device, Embedding, End, EngineInfo, EngineSpec, Fault, Gauges, PartLimit, Pooling,
    RankBytes, Refusal, RequestId, Sampling, Settled, Started, StepReport, TokenEngine,
    TokenLogprobs, TokenRequest, TokenUpdate,
};
pub use core::Engine;
pub use error::LoadError;
pub use grammar::{Grammar, Vocabulary};
pub use load::{cores, load, plan};
pub use part_limit::PartCount;
