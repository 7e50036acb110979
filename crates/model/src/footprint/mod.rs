//! How many bytes a rank takes, before anything is taken.

mod weights;

use kernels::KV_ELEMENT_BYTES;

pub use weights::held_bytes;

use crate::Error;
use crate::attention::attention_shape;
use crate::config::{LayerKind, ModelConfig};
use crate::decoder::{Capacity, Widths};
use crate::delta_net::delta_shapes;
use crate::load::{Source, TensorName};
use crate::shard::Shard;

/// Bytes of an f32.
const F32: u64 = 4;

/// One rank's bytes besides its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Keys and values.
    pub kv_bytes: u64,
    /// Recurrent state.
    pub state_bytes: u64,
    /// Activations.
    pub workspace_bytes: u64,
}

/// The footprint of a rank with f32 states and activations.
pub fn footprint(
    config: &ModelConfig,
    shard: &Shard,
    capacity: &Capacity,
) -> Result<Footprint, Error> {
    let layers = |kind| config.layers.iter().filter(|layer| **layer == kind).count() as u64;
    let attention = attention_shape(config, shard)?;
    let tokens = capacity.kv_blocks as u64 * capacity.block_size as u64;
    let kv = layers(LayerKind::FullAttention) * tokens * 2 * attention.kv_cols() as u64;
    let state = if let Some(delta) = &config.delta {
        let (delta, conv) = delta_shapes(delta, shard)?;
        let slot = (delta.state_elements() + conv.state_elements()) as u64;
        layers(LayerKind::LinearAttention) * capacity.state_slots as u64 * slot
    } else {
        0
    };
    let widths = Widths::of(config, shard)?;
    let row = 2 * widths.hidden
        + widths.qkv
        + widths.attended
        + widths.projected
        + widths.remembered
        + 3 * widths.ffn
        + mixture_cols(&widths);
    let logits = capacity.max_logit_rows * (widths.vocab + widths.vocab_part);
    let workspace = (capacity.max_rows * row + logits) as u64;
    Ok(Footprint {
        kv_bytes: kv * KV_ELEMENT_BYTES,
        state_bytes: state * F32,
        workspace_bytes: workspace * F32,
    })
}

/// What a mixture of experts holds of a row on its way: it comes and goes with the operation, and
/// is largest when all rows want one expert. That is its input, its output and what is between.
fn mixture_cols(widths: &Widths) -> usize {
    if widths.expert == 0 { 0 } else { 2 * widths.hidden + 3 * widths.expert }
}

/// Bytes of the tensors of a model as its files hold them; `held_bytes` says what becomes of them.
pub fn weight_bytes(source: &Source) -> Result<u64, Error> {
    let names = TensorName::all(source.config()).into_iter();
    names.map(|name| Ok(source.tensor(name)?.bytes.len() as u64)).sum()
}
