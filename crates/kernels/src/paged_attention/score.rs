//! Products of queries with keys: the sums of sixteen keys lie side by side, one a lane.

use super::cache::{Element, Head};
use crate::cpu::widest::widest;

/// Keys of a block that fills lanes.
const BLOCK: usize = 16;

/// `scores[query][token] = query · key` for all keys of the blocks that `stride` tokens take.
/// Where blocks fill lanes, `B` of them at a time: `N` sums alone would wait for one another.
pub(super) fn score<T: Element, const N: usize, const B: usize>(
    head: &Head<'_, T>,
    queries: &[f32],
    scores: &mut [f32],
    stride: usize,
) {
    if head.block_size != BLOCK {
        return any_size(head, queries, scores, stride);
    }
    let blocks = stride / BLOCK;
    let mut block = 0;
    while block + B <= blocks {
        // Blocks lie apart, so no processor guesses which is next.
        let [keys, next] = [block, block + B]
            .map(|first| std::array::from_fn(|at| head.keys((first + at).min(blocks - 1))));
        products::<T, N, B>(keys, next, queries, head.dim, scores, stride, block * BLOCK);
        block += B;
    }
    for block in block..blocks {
        let keys = [head.keys(block)];
        products::<T, N, 1>(keys, keys, queries, head.dim, scores, stride, block * BLOCK);
    }
}

fn any_size<T: Element>(head: &Head<'_, T>, queries: &[f32], scores: &mut [f32], stride: usize) {
    let size = head.block_size;
    for block in 0..stride / size {
        let keys = head.keys(block);
        for (query, scores) in queries.chunks_exact(head.dim).zip(scores.chunks_exact_mut(stride)) {
            products_of_any(keys, query, &mut scores[block * size..(block + 1) * size]);
        }
    }
}

widest! {
    fn products<T: Element; const N: usize, const B: usize>(
        keys: [&[T]; B],
        next: [&[T]; B],
        queries: &[f32],
        dim: usize,
        scores: &mut [f32],
        stride: usize,
        first: usize,
    ) {
        let keys: [&[[T; BLOCK]]; B] = keys.map(|keys| &keys.as_chunks().0[..dim]);
        let queries: [&[f32]; N] = std::array::from_fn(|n| &queries[n * dim..(n + 1) * dim]);
        let mut sums = [[L::splat(0.0); N]; B];
        for at in 0..dim {
            for b in 0..B {
                L::prefetch(&next[b][at * BLOCK]);
                let keys = T::lanes::<L>(&keys[b][at]);
                for n in 0..N {
                    sums[b][n] = keys.fused(L::splat(queries[n][at]), sums[b][n]);
                }
            }
        }
        for b in 0..B {
            for n in 0..N {
                let scores = &mut scores[n * stride + first + b * BLOCK..];
                sums[b][n].store(scores.first_chunk_mut().expect("within the stride"));
            }
        }
    }
}

/// The same for a block of any size.
fn products_of_any<T: Element>(keys: &[T], query: &[f32], scores: &mut [f32]) {
    scores.fill(0.0);
    for (query, keys) in query.iter().zip(keys.chunks_exact(scores.len())) {
        for (score, key) in scores.iter_mut().zip(keys) {
            *score += key.to_f32() * query;
        }
    }
}
