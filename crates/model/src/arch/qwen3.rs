//! Qwen3: attention in every layer.

use kernels::Backend;

use crate::Error;
use crate::attention::Attention;
use crate::decoder::{Decoder, Layer, Mixer};
use crate::load::Source;
use crate::mlp::Mlp;
use crate::shard::Shard;
use crate::weights::LayerWeights;

pub(super) fn load<B: Backend>(
    backend: &mut B,
    source: &Source,
    shard: Shard,
) -> Result<Decoder<B>, Error> {
    let layers = (0..source.config().layers.len()).map(|layer| {
        let weights = LayerWeights::new(source, layer);
        let mixer = Mixer::Attention(Attention::load(backend, &weights, &shard)?);
        Ok(Layer { mixer, mlp: Mlp::load(backend, &weights, &shard)? })
    });
    let layers = layers.collect::<Result<_, Error>>()?;
    Decoder::load(backend, source, shard, layers)
}
