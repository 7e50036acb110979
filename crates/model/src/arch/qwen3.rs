//! Qwen3: attention in every layer.

use kernels::Backend;

use crate::Error;
use crate::attention::Attention;
use crate::config::LayerKind;
use crate::decoder::{FeedForward, Layer, Mixer};
use crate::mlp::Mlp;
use crate::shard::Shard;
use crate::weights::LayerWeights;

pub(super) fn layer<B: Backend>(
    backend: &mut B,
    weights: &LayerWeights<'_>,
    shard: &Shard,
    _: LayerKind,
) -> Result<Layer<B>, Error> {
    let mixer = Mixer::Attention(Attention::load(backend, weights, shard)?);
    let feed_forward = FeedForward::Dense(Mlp::load(backend, weights, shard)?);
    Ok(Layer { mixer, feed_forward })
}
