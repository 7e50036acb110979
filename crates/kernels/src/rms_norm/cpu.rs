//! Normalisation on the CPU.

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

/// `1 / sqrt(mean(x²) + eps)`.
pub fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt()
}

/// Eight partial sums, so that the loop is as wide as the registers and the error small.
pub fn sum_of_squares(x: &[f32]) -> f32 {
    let mut partial = [0.0f32; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for (sum, x) in partial.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    partial.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>()
}
