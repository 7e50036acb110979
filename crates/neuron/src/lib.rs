//! The daemon of a GPU host: it finds the hardware, runs each model in an engine child of its
//! own, and answers for them over HTTP.
//!
//! ```text
//! server ─► app ─► generate ─► live ══ link ══► child ─► TokenEngine
//!            └──► control_routes ─► models ─► supervisor ─► lifecycle (pure) · process
//! ```
//!
//! A request holds a `live::Ticket`; dropping it anywhere on its way aborts the work.
#![forbid(unsafe_code)]

mod app;
mod assets;
mod auth;
mod body;
pub mod cards;
pub mod child;
pub mod config;
mod control_error;
mod control_routes;
mod device;
pub mod discover;
mod gauges;
mod generate;
mod gguf_text;
mod isolation;
pub mod lifecycle;
pub mod link;
mod live;
mod load_failure;
pub mod logging;
mod memory;
mod metrics;
mod models;
pub mod native;
pub mod process;
pub mod serve;
mod served;
mod server;
mod source;
mod spelling;
mod story;
mod supervisor;
