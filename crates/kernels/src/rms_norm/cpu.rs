//! Normalisation on the CPU.

use crate::cpu::vector::dot;
use crate::cpu::widest::widest;

widest! {
    /// One row; all three are `[cols]`.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = inverse_rms(x, eps);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }

    /// One row in place.
    pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
        let scale = inverse_rms(x, eps);
        for (x, weight) in x.iter_mut().zip(weight) {
            *x *= scale * weight;
        }
    }
}

/// `1 / sqrt(mean(x²) + eps)`.
pub fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt()
}

/// In partial sums, so that the loop is as wide as the registers and the error small.
pub fn sum_of_squares(x: &[f32]) -> f32 {
    dot(x, x)
}
