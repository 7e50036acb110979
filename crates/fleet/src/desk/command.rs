//! What the shell is told to do.

use serde::Serialize;

use crate::Harm;
use crate::place::Verdict;

/// What the shell must do; the end of each is an event for the desk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Ask a node what a load would take, then [`crate::Desk::planned`].
    Plan {
        /// The node's place.
        place: usize,
        /// The model.
        model: String,
    },
    /// Load a model on these devices, then [`crate::Desk::loaded`].
    Load {
        /// The node's place.
        place: usize,
        /// The model.
        model: String,
        /// None stands for main memory.
        devices: Vec<Option<u32>>,
        /// MiB of each rank.
        needs_mb: Vec<u64>,
        /// For whom.
        cause: LoadCause,
    },
    /// Unload a model, then [`crate::Desk::unloaded`].
    Unload {
        /// The node's place.
        place: usize,
        /// The model.
        model: String,
        /// What for.
        cause: UnloadCause,
    },
    /// A request that waited need wait no longer.
    Release {
        /// As given to [`crate::Desk::hold`].
        ask: u64,
        /// What becomes of it.
        outcome: Outcome,
    },
}

/// For whom a model is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadCause {
    /// For so many requests that wait.
    Waiting(usize),
    /// For nobody yet: the catalogue wants it kept loaded.
    Resident,
}

/// What a model is unloaded for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnloadCause {
    /// Another model needs its room.
    RoomFor {
        /// That model.
        model: String,
        /// What the whole eviction costs.
        harm: Harm,
    },
    /// Nobody asked for it for so long.
    Idle {
        /// Milliseconds.
        idle_ms: u64,
    },
    /// The operator wants it.
    Operator,
}

/// What becomes of a request that waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its model can be routed to.
    Ready,
    /// Its time is up.
    TimedOut,
    /// No node can have it, now or soon; each node's reason.
    Nowhere(Vec<Verdict>),
}
