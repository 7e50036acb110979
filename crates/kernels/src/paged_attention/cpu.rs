//! Attention on the CPU: one task a key-value head and a few rows, keys in order.
//!
//! The query heads that share keys, of a few rows, are computed together: keys and values are read
//! once for up to eight queries, block by block, and widened in the registers. Each query's sums
//! are taken in the same order whoever is beside it.

use super::cache::{Blocks, Element, Head};
pub use super::cache::{KvCache, KvPrecision};
use super::{AttentionShape, score, weigh};
use crate::cpu::vector::{gate, softmax};

/// Rows of a task.
pub const TASK_ROWS: usize = 4;

/// Queries computed together.
pub(super) const TOGETHER: usize = 8;

/// A task's memory.
#[derive(Default)]
pub struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

/// All query heads of key-value head `kv_head`, for rows at positions from `position`.
///
/// A row is its part of the projection and the part of the result that belongs to these heads,
/// `[heads / kv_heads, head_dim]`.
pub(crate) fn attend<T: Element>(
    shape: &AttentionShape,
    cache: &Blocks<T>,
    blocks: &[u32],
    position: usize,
    kv_head: usize,
    rows: &mut [(&[f32], &mut [f32])],
    scratch: &mut Scratch,
) {
    let (group, dim) = (shape.heads / shape.kv_heads, shape.head_dim);
    let start = |at: usize| (kv_head * group + at % group) * shape.query_stride();
    let head = cache.head(blocks, kv_head);
    let queries = rows.len() * group;
    let mut first = 0;
    while first < queries {
        let count = 1 << (queries - first).min(TOGETHER).ilog2();
        scratch.queries.clear();
        for at in first..first + count {
            scratch.queries.extend_from_slice(&rows[at / group].0[start(at)..start(at) + dim]);
        }
        let ends = |at: usize| position + (first + at.min(count - 1)) / group + 1;
        together(&head, count, std::array::from_fn(ends), scratch);
        for (at, result) in (first..).zip(scratch.out.chunks_exact(dim)) {
            let (row, out) = &mut rows[at / group];
            let out = &mut out[at % group * dim..][..dim];
            out.copy_from_slice(result);
            if shape.gated {
                gate(out, &row[start(at) + dim..start(at) + 2 * dim]);
            }
        }
        first += count;
    }
}

/// `count` queries of the scratch, each with the keys before its own end; ends ascend.
fn together<T: Element>(
    head: &Head<'_, T>,
    count: usize,
    ends: [usize; TOGETHER],
    scratch: &mut Scratch,
) {
    let dim = head.dim;
    let stride = ends[count - 1].next_multiple_of(head.block_size);
    scratch.scores.resize(count * stride, 0.0);
    scratch.out.clear();
    scratch.out.resize(count * dim, 0.0);
    let (queries, scores) = (&scratch.queries[..], &mut scratch.scores[..]);
    match count {
        1 => score::score::<T, 1, 8>(head, queries, scores, stride),
        2 => score::score::<T, 2, 4>(head, queries, scores, stride),
        4 => score::score::<T, 4, 2>(head, queries, scores, stride),
        _ => score::score::<T, TOGETHER, 1>(head, queries, scores, stride),
    }
    let scale = (dim as f32).sqrt().recip();
    let mut inverses = [0.0; TOGETHER];
    for (at, scores) in scores.chunks_exact_mut(stride).enumerate() {
        inverses[at] = softmax(&mut scores[..ends[at]], scale);
    }
    let out = &mut scratch.out[..];
    match count {
        1 => weigh::weigh::<T, 1, 8>(head, scores, stride, &ends, out),
        2 => weigh::weigh::<T, 2, 4>(head, scores, stride, &ends, out),
        4 => weigh::weigh::<T, 4, 2>(head, scores, stride, &ends, out),
        _ => weigh::weigh::<T, TOGETHER, 1>(head, scores, stride, &ends, out),
    }
    for (out, inverse) in out.chunks_exact_mut(dim).zip(inverses) {
        out.iter_mut().for_each(|out| *out *= inverse);
    }
}
