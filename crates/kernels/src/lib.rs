//! The operations that a model is made of, each with its reference and its backends.
//!
//! One folder an operation: `mod.rs` says what it computes and in which shapes, `reference.rs` is
//! the formula as loops in double precision, `cpu.rs` is what runs. A model is written over
//! [`Backend`] alone.
//!
//! | operation | input | output |
//! |---|---|---|
//! | [`embed`] | token ids `[rows]` | `[rows, hidden]` |
//! | [`rms_norm`] + [`linear`] | `[rows, in]` | `[rows, out]`, several matrices side by side |
//! | [`rope_kv`] | `[rows, q | k | v]` | queries in place, keys and values into their blocks |
//! | [`paged_attention`] | queries, blocks | `[rows, heads * head_dim]` |
//! | [`causal_conv1d`] | `[rows, channels]`, state | the same, in place |
//! | [`gated_delta_rule`] | `[rows, q | k | v | z | b | a]`, state | `[rows, values]` |
//! | [`gated_norm`] | `[rows, values]`, `z` | the same, in place |
//! | [`swiglu`] | `[rows, gate | up]` | `[rows, ffn]` |
//! | [`moe`] | `[rows, hidden]` | the same, by the experts that a router chooses |
//! | [`sample`] | logits `[rows, vocab]` | token ids |

mod backend;
pub mod causal_conv1d;
pub mod check;
pub mod cpu;
pub mod cuda;
pub mod embed;
mod fault;
pub mod gated_delta_rule;
pub mod gated_norm;
pub mod linear;
pub mod moe;
pub mod paged_attention;
pub mod quant;
pub mod rms_norm;
pub mod rope_kv;
pub mod sample;
pub mod swiglu;
mod weight;

pub use backend::{
    Backend, Begun, KV_ELEMENT_BYTES, KvShape, LaunchTime, SequenceRows, StepInputs,
};
pub use fault::DeviceFault;
pub use quant::WeightType;
pub use weight::{Weight, WeightBytes};
