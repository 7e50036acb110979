//! The gateway's policy: pure functions over an immutable picture of the fleet.
//!
//! `observe(snapshot, what a poll brought, now) -> snapshot` folds the nodes' reports,
//! `route(snapshot, ask, now) -> decision` says where a request goes and why, and a [`Desk`] keeps
//! what is promised: it hears events and says which models to load, to evict and to wait for.
//! Nothing here does I/O, reads a clock or draws a random number, so a decision can be replayed
//! from its inputs.
#![forbid(unsafe_code)]

pub mod budget;
mod catalogue;
mod desk;
mod evict;
mod memory;
mod observe;
mod outliers;
mod place;
mod route;
mod score;
mod snapshot;
mod tick;

#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, Profile, Strategy};
pub use desk::{Arrival, Command, Desk, LoadCause, Outcome, Stage, UnloadCause, Unplanned};
pub use evict::Harm;
pub use memory::Pool;
pub use observe::{Observation, observe};
pub use outliers::Outliers;
pub use place::{Fit, Verdict, View};
pub use route::{ALL_COMPARED, Ask, Forward, Refusal, Route, Unavailable, rate, route};
pub use score::{Link, Score};
pub use snapshot::{MISSED_LIMIT, Node, NodeReport, STALE_AFTER_MS, Snapshot, Standing};
pub use tick::Tick;
