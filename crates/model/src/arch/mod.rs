//! Architectures: which layers a model has. The layers themselves know their tensors.

mod qwen3;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod qwen3_next;

use kernels::Backend;

use crate::Error;
use crate::config::Architecture;
use crate::decoder::Decoder;
use crate::load::Source;
use crate::shard::Shard;
use crate::weights::LayerWeights;

/// Loads one rank's share of a model.
pub fn load<B: Backend>(
    backend: &mut B,
    source: &Source,
    shard: Shard,
) -> Result<Decoder<B>, Error> {
    let config = source.config();
    let layer = match config.architecture {
        Architecture::Qwen3 => qwen3::layer,
        Architecture::Qwen3Moe => qwen3_moe::layer,
        Architecture::Qwen35 => qwen3_5::layer,
        Architecture::Qwen35Moe => qwen3_5_moe::layer,
        Architecture::Qwen3Next => qwen3_next::layer,
    };
    let layers = config.layers.iter().enumerate();
    let layers =
        layers.map(|(at, kind)| layer(backend, &LayerWeights::new(source, at), &shard, *kind));
    let layers = layers.collect::<Result<_, Error>>()?;
    Decoder::load(backend, source, shard, layers)
}
