//! Tokens in, tokens out: the contract between a serving daemon and an engine.
//!
//! Text, chat templates and dialects live outside. An engine is driven by one thread that owns it:
//! submit and abort between steps, then [`TokenEngine::step`], which advances every running
//! request and reports what came of it.
#![forbid(unsafe_code)]

mod contract;

pub use contract::{
    End, EngineInfo, EngineSpec, Fault, Gauges, RankBytes, Refusal, RequestId, Sampling,
    StepReport, TokenEngine, TokenRequest, TokenUpdate,
};
