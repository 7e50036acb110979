//! The gateway's policy: pure functions over an immutable picture of the fleet.
//!
//! `observe(snapshot, what a poll brought, now) -> snapshot` folds the nodes' reports, and
//! `route(snapshot, ask, now) -> decision` says where a request goes and why. Nothing here does
//! I/O, reads a clock or draws a random number, so a decision can be replayed from its inputs.
#![forbid(unsafe_code)]

mod observe;
mod route;
mod snapshot;
mod tick;

#[cfg(test)]
mod tests;

pub use observe::{Observation, observe};
pub use route::{Ask, Forward, Refusal, Route, Unavailable, route};
pub use snapshot::{MISSED_LIMIT, Node, NodeReport, STALE_AFTER_MS, Snapshot, Standing};
pub use tick::Tick;
