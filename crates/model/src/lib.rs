//! Model files, their configuration and the networks that they describe.
// Not `forbid`: one module maps files, see `load`.
#![deny(unsafe_code)]

mod config;
mod convert;
mod error;
pub mod gguf;
pub mod load;
mod quant_names;
pub mod safetensors;

pub use config::{Architecture, DeltaConfig, LayerKind, ModelConfig, ValueHeadOrder};
pub use convert::{convert, stored_type};
pub use error::Error;
pub use load::{MtpRole, Role, Source, TensorName, TensorView};
