//! Qwen3: attention in every layer.

use kernels::Backend;

use crate::Error;
use crate::attention::Attention;
use crate::decoder::{Decoder, Layer, Mixer};
use crate::mlp::Mlp;
use crate::shard::Shard;
use crate::weights::Weights;

pub(super) fn load<B: Backend>(
    backend: &mut B,
    weights: &dyn Weights,
    shard: Shard,
) -> Result<Decoder<B>, Error> {
    let layers = (0..weights.config().layers.len()).map(|layer| {
        let mixer = Mixer::Attention(Attention::load(backend, weights, &shard, layer)?);
        Ok(Layer { mixer, mlp: Mlp::load(backend, weights, &shard, layer)? })
    });
    let layers = layers.collect::<Result<_, Error>>()?;
    Decoder::load(backend, weights, shard, layers)
}
