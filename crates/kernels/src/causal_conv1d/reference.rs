//! The formula as loops.

use super::ConvShape;

/// A whole sequence from its first token: `x` is `[tokens, channels]`, `taps` `[taps, channels]`.
pub fn causal_conv1d(shape: &ConvShape, x: &[f64], taps: &[f64]) -> Vec<f64> {
    let tokens = x.len() / shape.channels;
    let mut out = vec![0.0; x.len()];
    for token in 0..tokens {
        for channel in 0..shape.channels {
            let mut sum = 0.0;
            for tap in 0..shape.taps {
                if let Some(source) = (token + tap + 1).checked_sub(shape.taps) {
                    sum +=
                        taps[tap * shape.channels + channel] * x[source * shape.channels + channel];
                }
            }
            out[token * shape.channels + channel] = sum / (1.0 + (-sum).exp());
        }
    }
    out
}
