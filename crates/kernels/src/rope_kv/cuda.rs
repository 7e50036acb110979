//! The launch on a card.

use crate::cuda::{Buffer, Cuda, Grid, Tensor};
use crate::paged_attention::AttentionShape;
use crate::paged_attention::cuda::KvCache;
use crate::rms_norm::cuda::threads;

/// Norms and rotates queries in place, and puts keys and values into their blocks.
pub(crate) fn rope_kv(
    cuda: &Cuda,
    shape: &AttentionShape,
    qkv: &mut Tensor,
    (q_norm, k_norm): (&Buffer<f32>, &Buffer<f32>),
    cache: &mut KvCache,
) {
    let heads = shape.heads + 2 * shape.kv_heads;
    let grid = Grid::plane(heads as u32, cuda.rows() as u32, threads(shape.head_dim));
    let step = &cuda.step;
    cuda.launch("rope_kv_plain", grid.with_shared(4 * shape.head_dim as u32))
        .arg(&qkv.values)
        .arg(q_norm)
        .arg(k_norm)
        .arg(shape.eps)
        .arg(shape.heads)
        .arg(shape.kv_heads)
        .arg(shape.head_dim)
        .arg(shape.rotary_dim)
        .arg(shape.rope_theta)
        .arg(shape.query_stride())
        .arg(qkv.cols)
        .arg(step.positions())
        .arg(step.row_sequence())
        .arg(step.block_table())
        .arg(step.blocks_stride())
        .arg(cache.shape.block_size)
        .arg(&cache.keys)
        .arg(&cache.values)
        .overlapping()
        .run();
}
