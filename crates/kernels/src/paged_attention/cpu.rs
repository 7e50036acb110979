//! Attention on the CPU: one task a key-value head and a few rows, keys in order.
//!
//! The query heads that share keys, of a few rows, are computed together: keys and values are read
//! once for up to eight queries. Each query's sums are taken in the same order whoever is beside
//! it.

use super::AttentionShape;
use super::cache::Head;
pub use super::cache::KvCache;
use crate::cpu::vector::{gate, softmax};
use crate::cpu::widest::{fused, widest};

/// Rows of a task.
pub const TASK_ROWS: usize = 4;

/// Queries computed together.
const TOGETHER: usize = 8;

/// Columns of the result that are summed at a time.
const COLUMNS: usize = 16;

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
pub fn attend(
    shape: &AttentionShape,
    cache: &KvCache,
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
fn together(head: &Head<'_>, count: usize, ends: [usize; TOGETHER], scratch: &mut Scratch) {
    let dim = head.dim;
    let stride = ends[count - 1].next_multiple_of(head.block_size);
    scratch.scores.resize(count * stride, 0.0);
    scratch.out.resize(count * dim, 0.0);
    let (queries, scores) = (&scratch.queries[..], &mut scratch.scores[..count * stride]);
    match count {
        1 => score::<1>(head, queries, scores, stride),
        2 => score::<2>(head, queries, scores, stride),
        4 => score::<4>(head, queries, scores, stride),
        _ => score::<TOGETHER>(head, queries, scores, stride),
    }
    let scale = (dim as f32).sqrt().recip();
    let mut inverses = [0.0; TOGETHER];
    for (at, scores) in scores.chunks_exact_mut(stride).enumerate() {
        inverses[at] = softmax(&mut scores[..ends[at]], scale);
    }
    let out = &mut scratch.out[..];
    match count {
        1 => weigh::<1>(head, scores, stride, &ends, out),
        2 => weigh::<2>(head, scores, stride, &ends, out),
        4 => weigh::<4>(head, scores, stride, &ends, out),
        _ => weigh::<TOGETHER>(head, scores, stride, &ends, out),
    }
    for (out, inverse) in out.chunks_exact_mut(dim).zip(inverses) {
        out.iter_mut().for_each(|out| *out *= inverse);
    }
}

/// Products of `N` queries with all keys of the blocks that `stride` tokens take.
fn score<const N: usize>(head: &Head<'_>, queries: &[f32], scores: &mut [f32], stride: usize) {
    for block in 0..stride / head.block_size {
        let (keys, at) = (head.keys(block), block * head.block_size);
        match head.block_size {
            16 => score_block::<N, 16>(keys, queries, scores, stride, at),
            size => score_any(keys, size, queries, scores, stride, at),
        }
    }
}

/// Sums of `W` keys lie side by side, one a lane.
fn score_block<const N: usize, const W: usize>(
    keys: &[f32],
    queries: &[f32],
    scores: &mut [f32],
    stride: usize,
    at: usize,
) {
    let dim = keys.len() / W;
    let mut sums = [[0.0f32; W]; N];
    products::<N, W>(keys, queries, dim, &mut sums);
    for (n, sums) in sums.iter().enumerate() {
        scores[n * stride + at..][..W].copy_from_slice(sums);
    }
}

widest! {
    fn products<const N: usize, const W: usize>(
        keys: &[f32],
        queries: &[f32],
        dim: usize,
        out: &mut [[f32; W]; N],
    ) {
        let queries: [&[f32]; N] = std::array::from_fn(|n| &queries[n * dim..(n + 1) * dim]);
        let mut sums = [[0.0f32; W]; N];
        for (at, keys) in keys.as_chunks::<W>().0[..dim].iter().enumerate() {
            for n in 0..N {
                let query = queries[n][at];
                for lane in 0..W {
                    sums[n][lane] = fused::<FMA>(keys[lane], query, sums[n][lane]);
                }
            }
        }
        *out = sums;
    }

    /// The same for blocks of any size.
    fn score_any(
        keys: &[f32],
        size: usize,
        queries: &[f32],
        scores: &mut [f32],
        stride: usize,
        at: usize,
    ) {
        let dim = keys.len() / size;
        for (query, scores) in queries.chunks_exact(dim).zip(scores.chunks_exact_mut(stride)) {
            let scores = &mut scores[at..at + size];
            scores.fill(0.0);
            for (query, keys) in query.iter().zip(keys.chunks_exact(size)) {
                for (score, key) in scores.iter_mut().zip(keys) {
                    *score = fused::<FMA>(*key, *query, *score);
                }
            }
        }
    }
}

/// Sums of values under `N` queries' weights, a few columns at a time.
fn weigh<const N: usize>(
    head: &Head<'_>,
    weights: &[f32],
    stride: usize,
    ends: &[usize; TOGETHER],
    out: &mut [f32],
) {
    let mut column = 0;
    while column < head.dim {
        let left = head.dim - column;
        let width = if left >= COLUMNS { COLUMNS } else { 1 };
        match width {
            COLUMNS => columns::<N, COLUMNS>(head, weights, stride, ends, out, column),
            _ => columns::<N, 1>(head, weights, stride, ends, out, column),
        }
        column += width;
    }
    // Later rows see a few tokens more.
    for n in 1..N {
        let out = &mut out[n * head.dim..(n + 1) * head.dim];
        for token in ends[0]..ends[n] {
            let (block, within) = (token / head.block_size, token % head.block_size);
            let values = &head.values(block)[within * head.dim..][..head.dim];
            add_weighted(weights[n * stride + token], values, out);
        }
    }
}

widest! {
    fn columns<const N: usize, const W: usize>(
        head: &Head<'_>,
        weights: &[f32],
        stride: usize,
        ends: &[usize; TOGETHER],
        out: &mut [f32],
        column: usize,
    ) {
        let weights: [&[f32]; N] = std::array::from_fn(|n| &weights[n * stride..][..stride]);
        let mut sums = [[0.0f32; W]; N];
        for block in 0..stride / head.block_size {
            let first = block * head.block_size;
            let count = ends[0].saturating_sub(first).min(head.block_size);
            let weights: [&[f32]; N] = std::array::from_fn(|n| &weights[n][first..][..count]);
            let values = &head.values(block)[..count * head.dim];
            for (token, values) in values.chunks_exact(head.dim).enumerate() {
                let values: &[f32; W] = values[column..].first_chunk().expect("within the row");
                for n in 0..N {
                    let weight = weights[n][token];
                    for lane in 0..W {
                        sums[n][lane] = fused::<FMA>(values[lane], weight, sums[n][lane]);
                    }
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            out[n * head.dim + column..][..W].copy_from_slice(sums);
        }
    }

    /// `out += weight * values`.
    fn add_weighted(weight: f32, values: &[f32], out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = fused::<FMA>(*value, weight, *out);
        }
    }
}
