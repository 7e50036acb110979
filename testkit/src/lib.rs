//! Stand-ins for the tests of other crates: a neuron that answers by a script, an engine that
//! follows one instead of a model, model directories small enough to be written by each test.
#![forbid(unsafe_code)]

pub mod fake_neuron;
pub mod heads;
mod model_dir;
mod must_fail;
mod program;
mod random_model;
mod scene;
mod scripted;

pub use model_dir::{END_OF_TURN, byte_token, byte_tokens, vocabulary, write_model_dir};
pub use must_fail::{JSON_ROUTES, assert_refusal, must_fail_requests};
pub use program::Program;
pub use random_model::write_random_model;
pub use scene::Scene;
pub use scripted::{FailedLoad, Script, ScriptedEngine};
