//! The formula as loops.

use crate::weight::Weight;

/// `x` is `[rows, in]`; the result is `[rows, out]`. Weights are decoded, inputs are not rounded.
pub fn linear(weight: &Weight, x: &[f64]) -> Vec<f64> {
    let values = weight.to_f32();
    let mut out = Vec::new();
    for x in x.chunks_exact(weight.cols) {
        for weights in values.chunks_exact(weight.cols) {
            out.push(weights.iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum());
        }
    }
    out
}
