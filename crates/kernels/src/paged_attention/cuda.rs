//! Keys and values on a card, and the launch.

use std::sync::Arc;

use half::f16;

use super::AttentionShape;
use crate::backend::KvShape;
use crate::cuda::{Buffer, Context, Cuda, Grid, Tensor};

/// Elements of a head that the plain kernel has registers for.
const MOST_HEAD_DIM: usize = 512;

/// One layer's keys and values, each `[block][kv_head][block_size][head_dim]` in f16.
pub struct KvCache {
    pub(crate) shape: KvShape,
    pub(crate) keys: Buffer<f16>,
    pub(crate) values: Buffer<f16>,
}

impl KvCache {
    pub(crate) fn new(context: &Arc<Context>, shape: KvShape) -> Self {
        let elements = shape.blocks * Self::block_elements(&shape);
        let part = || Buffer::zeroed(context, "keys and values", elements);
        Self { shape, keys: part(), values: part() }
    }

    /// Elements of a block's keys; as many are its values.
    pub(crate) fn block_elements(shape: &KvShape) -> usize {
        shape.kv_heads * shape.block_size * shape.head_dim
    }

    pub(crate) fn copy_block(&mut self, from: usize, to: usize) {
        let size = Self::block_elements(&self.shape);
        for part in [&self.keys, &self.values] {
            part.copy_within(from * size, to * size, size);
        }
    }
}

/// Causal attention of the step's queries over all their keys.
pub(crate) fn attention(
    cuda: &Cuda,
    shape: &AttentionShape,
    qkv: &Tensor,
    cache: &KvCache,
    out: &mut Tensor,
) {
    assert!(shape.head_dim <= MOST_HEAD_DIM, "a head of {} elements", shape.head_dim);
    let step = &cuda.step;
    cuda.launch("attention_plain", Grid::plane(shape.heads as u32, cuda.rows() as u32, 32))
        .arg(&qkv.values)
        .arg(shape.heads)
        .arg(shape.kv_heads)
        .arg(shape.head_dim)
        .arg(shape.query_stride())
        .arg(qkv.cols)
        .arg(shape.gated)
        .arg(step.positions())
        .arg(step.row_sequence())
        .arg(step.block_table())
        .arg(step.blocks_stride())
        .arg(cache.shape.block_size)
        .arg(&cache.keys)
        .arg(&cache.values)
        .arg(&out.values)
        .overlapping()
        .run();
}
