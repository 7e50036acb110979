//! Sums of values under the queries' weights: sixteen columns lie side by side.

use super::cache::{Element, Head};
use super::cpu::TOGETHER;
use crate::cpu::lanes::Lanes;
use crate::cpu::widest::{fused, widest};

/// Columns that fill lanes.
const COLUMNS: usize = 16;

/// `out[query] += sum over tokens of weights[query][token] * value[token]`, each query up to its
/// own end. Blocks are read in order; of each, `C` times sixteen columns at a time.
pub(super) fn weigh<T: Element, const N: usize, const C: usize>(
    head: &Head<'_, T>,
    weights: &[f32],
    stride: usize,
    ends: &[usize; TOGETHER],
    out: &mut [f32],
) {
    let (size, dim) = (head.block_size, head.dim);
    let shared = ends[0] / size;
    for block in 0..shared {
        let weights: [&[f32]; N] =
            std::array::from_fn(|n| &weights[n * stride + block * size..][..size]);
        let next = head.values((block + 1).min((ends[N - 1] - 1) / size));
        add_block::<T, N, C>(head.values(block), next, weights, dim, out);
    }
    // What not all see whole.
    for n in 0..N {
        let out = &mut out[n * dim..(n + 1) * dim];
        for token in shared * size..ends[n] {
            let values = &head.values(token / size)[token % size * dim..][..dim];
            add_block::<T, 1, 1>(values, values, [&weights[n * stride + token..][..1]], dim, out);
        }
    }
}

widest! {
    /// A block's tokens, as many as there are weights.
    fn add_block<T: Element; const N: usize, const C: usize>(
        values: &[T],
        next: &[T],
        weights: [&[f32]; N],
        dim: usize,
        out: &mut [f32],
    ) {
        // Blocks lie apart, so no processor guesses which is next.
        for value in next.iter().step_by(64 / size_of::<T>()) {
            L::prefetch(value);
        }
        let mut column = 0;
        while column + C * COLUMNS <= dim {
            add_columns::<L, T, N, C>(values, &weights, dim, out, column);
            column += C * COLUMNS;
        }
        while column + COLUMNS <= dim {
            add_columns::<L, T, N, 1>(values, &weights, dim, out, column);
            column += COLUMNS;
        }
        for column in column..dim {
            for n in 0..N {
                for (values, weight) in values.chunks_exact(dim).zip(weights[n]) {
                    let value = values[column].to_f32();
                    out[n * dim + column] = fused::<FMA>(value, *weight, out[n * dim + column]);
                }
            }
        }
    }
}

#[inline(always)]
fn add_columns<L: Lanes, T: Element, const N: usize, const C: usize>(
    values: &[T],
    weights: &[&[f32]; N],
    dim: usize,
    out: &mut [f32],
    column: usize,
) {
    let at = |n: usize, c: usize| n * dim + column + c * COLUMNS;
    let mut sums = [[L::splat(0.0); C]; N];
    for n in 0..N {
        for c in 0..C {
            sums[n][c] = L::load(out[at(n, c)..].first_chunk().expect("within the row"));
        }
    }
    for (token, values) in values.chunks_exact(dim).enumerate() {
        let (values, _) = values[column..column + C * COLUMNS].as_chunks();
        for c in 0..C {
            let values = T::lanes::<L>(&values[c]);
            for n in 0..N {
                sums[n][c] = values.fused(L::splat(weights[n][token]), sums[n][c]);
            }
        }
    }
    for n in 0..N {
        for c in 0..C {
            sums[n][c].store(out[at(n, c)..].first_chunk_mut().expect("within the row"));
        }
    }
}
