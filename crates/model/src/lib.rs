//! Model files, their configuration and the networks that they describe.
// Not `forbid`: one module maps files, see `load`.
#![deny(unsafe_code)]

pub mod arch;
mod attention;
mod cache;
mod checkpoint;
pub mod comm;
mod config;
mod decoder;
mod delta_net;
mod error;
mod footprint;
pub mod gguf;
mod linear;
pub mod load;
mod mlp;
mod names;
mod quant_names;
mod shard;
mod step;
mod weights;

pub use cache::Cache;
pub use checkpoint::Checkpoint;
pub use config::*;
pub use decoder::{Capacity, Decoder, Scratch};
pub use error::Error;
pub use footprint::{Footprint, footprint};
pub use load::TensorView;
pub use shard::Shard;
pub use weights::{Role, Weights};
