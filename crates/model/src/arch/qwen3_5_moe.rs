//! Qwen3.5 and 3.6 with experts: as Qwen3.5, with a mixture and a shared expert in every layer.

use kernels::Backend;

use crate::Error;
use crate::config::LayerKind;
use crate::decoder::{FeedForward, Layer, Mixer};
use crate::moe::Moe;
use crate::shard::Shard;
use crate::weights::LayerWeights;

pub(super) fn layer<B: Backend>(
    backend: &mut B,
    weights: &LayerWeights<'_>,
    shard: &Shard,
    kind: LayerKind,
) -> Result<Layer<B>, Error> {
    let mixer = Mixer::load(backend, weights, shard, kind)?;
    let feed_forward = FeedForward::Moe(Moe::load(backend, weights, shard)?);
    Ok(Layer { mixer, feed_forward })
}
