//! Queries, keys and values of a row on the CPU.

use crate::paged_attention::AttentionShape;
use crate::rms_norm::cpu::rms_norm_in_place;

/// `theta^(-2i / rotary_dim)` for each pair, in double precision: at position 100,000 an angle in
/// single precision is off by a hundredth.
pub fn frequencies(shape: &AttentionShape) -> impl Iterator<Item = f64> {
    let (theta, exponent) = (shape.rope_theta, -2.0 / shape.rotary_dim as f64);
    (0..shape.rotary_dim / 2).map(move |i| theta.powf(exponent * i as f64))
}

/// Cosine and sine of each pair's angle at `position`.
pub fn rotation(frequencies: &[f64], position: usize) -> impl Iterator<Item = (f32, f32)> {
    frequencies.iter().map(move |frequency| {
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        (cos as f32, sin as f32)
    })
}

fn rotate(head: &mut [f32], rotation: &[(f32, f32)]) {
    let (low, high) = head.split_at_mut(rotation.len());
    for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(rotation) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// One row `[q | k | v]`: queries and keys in place.
pub fn norm_and_rotate(
    shape: &AttentionShape,
    row: &mut [f32],
    (q_norm, k_norm): (&[f32], &[f32]),
    rotation: &[(f32, f32)],
) {
    let (queries, keys_values) = row.split_at_mut(shape.query_cols());
    for query in queries.chunks_exact_mut(shape.query_stride()) {
        let query = &mut query[..shape.head_dim];
        rms_norm_in_place(query, q_norm, shape.eps);
        rotate(query, rotation);
    }
    for key in keys_values[..shape.kv_cols()].chunks_exact_mut(shape.head_dim) {
        rms_norm_in_place(key, k_norm, shape.eps);
        rotate(key, rotation);
    }
}
