//! Stand-ins for the tests of other crates: an engine that follows a script instead of a model,
//! and a model directory small enough to be written by each test.
#![forbid(unsafe_code)]

mod model_dir;
mod scripted;

pub use model_dir::{END_OF_TURN, byte_token, byte_tokens, write_model_dir};
pub use scripted::{FailedLoad, Script, ScriptedEngine};
