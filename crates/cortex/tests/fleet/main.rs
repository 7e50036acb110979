//! The real programs: one gateway, several neurons, and everything that can happen to them.
//!
//! The neurons serve the sample model under several names, with memory for one of them.
//! `cargo test --workspace` builds both programs; alone, these tests want `cargo build -p neuron`
//! first.

mod affinity;
#[path = "../gateway/client.rs"]
#[allow(dead_code, reason = "the other tests' gateway is not used here")]
mod client;
mod cold;
mod dropper;
mod faults;
mod operate;
mod programs;
