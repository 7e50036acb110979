//! Attention on the CPU: one task a row and key-value head, keys in order.

use super::AttentionShape;
use crate::backend::KvShape;
use crate::linear::cpu::dot_f32;

/// One layer's keys and values: `[blocks, kv_heads, block_size, head_dim]` each, so that what one
/// head needs of a block is contiguous.
pub struct KvCache {
    /// Its size.
    pub shape: KvShape,
    /// Rotated keys.
    pub keys: Vec<f32>,
    /// Values.
    pub values: Vec<f32>,
}

impl KvCache {
    /// Room for `shape`, zeroed.
    pub fn new(shape: KvShape) -> Self {
        let elements = shape.blocks * shape.kv_heads * shape.block_size * shape.head_dim;
        Self { shape, keys: vec![0.0; elements], values: vec![0.0; elements] }
    }

    /// Copies all heads' keys and values of one block to another.
    pub fn copy_block(&mut self, from: usize, to: usize) {
        let size = self.shape.kv_heads * self.shape.block_size * self.shape.head_dim;
        self.keys.copy_within(from * size..(from + 1) * size, to * size);
        self.values.copy_within(from * size..(from + 1) * size, to * size);
    }

    /// Where the head's part of a block starts; it holds `block_size * head_dim` elements.
    pub fn offset(&self, block: u32, head: usize) -> usize {
        let tile = self.shape.block_size * self.shape.head_dim;
        (block as usize * self.shape.kv_heads + head) * tile
    }

    /// The elements of a token of the sequence whose blocks these are.
    pub fn token(&self, blocks: &[u32], head: usize, token: usize) -> std::ops::Range<usize> {
        let start = self.offset(blocks[token / self.shape.block_size], head)
            + token % self.shape.block_size * self.shape.head_dim;
        start..start + self.shape.head_dim
    }
}

/// All query heads of one key-value head, for one row at `position`.
///
/// `row` is the row of the projection, `out` the part of the result that belongs to these heads:
/// `[heads / kv_heads, head_dim]`. `scores` is scratch.
pub fn attend(
    shape: &AttentionShape,
    cache: &KvCache,
    blocks: &[u32],
    position: usize,
    kv_head: usize,
    row: &[f32],
    out: &mut [f32],
    scores: &mut Vec<f32>,
) {
    let group = shape.heads / shape.kv_heads;
    for (at, out) in out.chunks_exact_mut(shape.head_dim).enumerate() {
        let start = (kv_head * group + at) * shape.query_stride();
        let query = &row[start..start + shape.head_dim];
        softmax_scores(cache, blocks, position, kv_head, query, scores);
        weigh_values(cache, blocks, kv_head, scores, out);
        if shape.gated {
            let gate = &row[start + shape.head_dim..start + 2 * shape.head_dim];
            for (out, gate) in out.iter_mut().zip(gate) {
                *out *= 1.0 / (1.0 + (-gate).exp());
            }
        }
    }
}

/// Leaves the weight of each key `0..=position` in `scores`.
fn softmax_scores(
    cache: &KvCache,
    blocks: &[u32],
    position: usize,
    kv_head: usize,
    query: &[f32],
    scores: &mut Vec<f32>,
) {
    let KvShape { block_size, head_dim, .. } = cache.shape;
    let scale = (head_dim as f32).sqrt().recip();
    scores.clear();
    for (at, block) in blocks[..=position / block_size].iter().enumerate() {
        let count = (position + 1 - at * block_size).min(block_size);
        let start = cache.offset(*block, kv_head);
        let keys = &cache.keys[start..start + count * head_dim];
        scores.extend(keys.chunks_exact(head_dim).map(|key| scale * dot_f32(query, key)));
    }
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - highest).exp();
        total += *score;
    }
    let inverse = 1.0 / total;
    scores.iter_mut().for_each(|score| *score *= inverse);
}

fn weigh_values(cache: &KvCache, blocks: &[u32], kv_head: usize, weights: &[f32], out: &mut [f32]) {
    let KvShape { block_size, head_dim, .. } = cache.shape;
    out.fill(0.0);
    for (weights, block) in weights.chunks(block_size).zip(blocks) {
        let start = cache.offset(*block, kv_head);
        let values = cache.values[start..].chunks_exact(head_dim);
        for (weight, value) in weights.iter().zip(values) {
            for (out, value) in out.iter_mut().zip(value) {
                *out += weight * value;
            }
        }
    }
}
