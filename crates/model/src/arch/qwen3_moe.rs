//! Qwen3 with experts: attention and a mixture in every layer.

use kernels::Backend;

use crate::Error;
use crate::attention::Attention;
use crate::config::LayerKind;
use crate::decoder::{FeedForward, Layer, Mixer};
use crate::moe::Moe;
use crate::shard::Shard;
use crate::weights::LayerWeights;

pub(super) fn layer<B: Backend>(
    backend: &mut B,
    weights: &LayerWeights<'_>,
    shard: &Shard,
    _: LayerKind,
) -> Result<Layer<B>, Error> {
    let mixer = Mixer::Attention(Attention::load(backend, weights, shard)?);
    let feed_forward = FeedForward::Moe(Moe::load(backend, weights, shard)?);
    Ok(Layer { mixer, feed_forward })
}
