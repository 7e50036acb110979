//! Qwen3.5 and 3.6: Gated DeltaNet layers with an attention layer every few.

use kernels::Backend;

use crate::Error;
use crate::attention::Attention;
use crate::config::LayerKind;
use crate::decoder::{Decoder, Layer, Mixer};
use crate::delta_net::DeltaNet;
use crate::load::Source;
use crate::mlp::Mlp;
use crate::shard::Shard;
use crate::weights::LayerWeights;

pub(super) fn load<B: Backend>(
    backend: &mut B,
    source: &Source,
    shard: Shard,
) -> Result<Decoder<B>, Error> {
    let kinds = &source.config().layers;
    let layers = kinds.iter().enumerate().map(|(layer, kind)| {
        let weights = LayerWeights::new(source, layer);
        let mixer = match kind {
            LayerKind::FullAttention => {
                Mixer::Attention(Attention::load(backend, &weights, &shard)?)
            }
            LayerKind::LinearAttention => {
                Mixer::DeltaNet(DeltaNet::load(backend, &weights, &shard)?)
            }
        };
        Ok(Layer { mixer, mlp: Mlp::load(backend, &weights, &shard)? })
    });
    let layers = layers.collect::<Result<_, Error>>()?;
    Decoder::load(backend, source, shard, layers)
}
