//! Architectures: which layers a model has. The layers themselves know their tensors.

mod qwen3;
mod qwen3_5;

use kernels::Backend;

use crate::config::Architecture;
use crate::decoder::Decoder;
use crate::shard::Shard;
use crate::weights::Weights;
use crate::{Error, config};

/// Loads one rank's share of a model.
pub fn load<B: Backend>(
    backend: &mut B,
    weights: &dyn Weights,
    shard: Shard,
) -> Result<Decoder<B>, Error> {
    let config: &config::ModelConfig = weights.config();
    match config.architecture {
        Architecture::Qwen3 => qwen3::load(backend, weights, shard),
        Architecture::Qwen35 => qwen3_5::load(backend, weights, shard),
    }
}
