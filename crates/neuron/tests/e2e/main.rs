//! The daemon over HTTP, with engine children that are real processes.
#![allow(missing_docs, unreachable_pub, clippy::needless_pass_by_value)]

mod chat;
mod client;
mod dialects;
mod embeddings;
mod errors;
mod forms;
mod libraries;
mod life;
mod malformed;
mod memory;
mod node;
mod prefix;
mod program;
mod thoughts;
mod weights;
