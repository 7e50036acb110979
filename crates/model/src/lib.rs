//! Model files, their configuration and the networks that they describe.
// Not `forbid`: one module maps files, see `load`.
#![deny(unsafe_code)]

pub mod arch;
mod attention;
mod cache;
pub mod comm;
mod config;
mod convert;
mod decoder;
mod delta_net;
mod error;
mod footprint;
pub mod gguf;
mod linear;
pub mod load;
mod mlp;
mod moe;
mod quant_names;
mod recipe;
pub mod safetensors;
mod shard;
mod step;
mod vocabulary;
mod weights;

pub use cache::Cache;
pub use config::{
    Architecture, DeltaConfig, ExpertLayout, LayerKind, Layout, ModelConfig, MoeConfig,
    ValueHeadOrder,
};
pub use convert::{convert, write_random};
pub use decoder::{Capacity, Decoder, Scratch};
pub use error::Error;
pub use footprint::{Footprint, footprint, held_bytes, weight_bytes};
pub use kernels::KV_ELEMENT_BYTES;
pub use load::{MtpRole, Role, Source, TensorName, TensorView};
pub use recipe::Recipe;
pub use shard::Shard;
