//! Model files, their configuration and the networks that they describe.
// Not `forbid`: one module maps files, see `load`.
#![deny(unsafe_code)]

mod error;
pub mod gguf;
pub mod load;
mod quant_names;

pub use error::Error;
pub use load::TensorView;
