//! Architectures: which layers a model has. The layers themselves know their tensors.

mod qwen3;
mod qwen3_5;

use kernels::Backend;

use crate::Error;
use crate::config::Architecture;
use crate::decoder::Decoder;
use crate::load::Source;
use crate::shard::Shard;

/// Loads one rank's share of a model.
pub fn load<B: Backend>(
    backend: &mut B,
    source: &Source,
    shard: Shard,
) -> Result<Decoder<B>, Error> {
    match source.config().architecture {
        Architecture::Qwen3 => qwen3::load(backend, source, shard),
        Architecture::Qwen35 => qwen3_5::load(backend, source, shard),
    }
}
