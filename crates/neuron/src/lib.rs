//! The daemon of a GPU host: it finds the hardware, runs each model in an engine child of its
//! own, and answers for them over HTTP.
//!
//! ```text
//! server ─► app ─► generate ─► models/live ══ child/link ══► child ─► TokenEngine
//!            └──► control_routes ─► models ─► supervisor ─► lifecycle (pure) · child/process
//! ```
//!
//! `models` is what the node knows of each model, `child` both ends of an engine's process,
//! `source` the files that a model comes from, `hub` how they get there, `host` the machine. A
//! request holds a `models::live::Ticket`; dropping it anywhere on its way aborts the work.
#![forbid(unsafe_code)]

mod app;
mod asker;
mod auth;
mod body;
pub mod child;
pub mod config;
mod control_error;
mod control_routes;
mod generate;
pub mod host;
pub mod hub;
mod isolation;
pub mod logging;
mod metrics;
pub mod models;
pub mod serve;
mod server;
mod source;
mod spelling;
mod story;
