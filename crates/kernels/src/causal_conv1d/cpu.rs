//! The convolution on the CPU.

use super::ConvShape;
use crate::swiglu::silu;

/// One token in place: `x` is `[channels]`, `taps` `[taps, channels]`, `state`
/// `[taps - 1, channels]`, oldest first.
pub fn causal_conv1d(shape: &ConvShape, x: &mut [f32], taps: &[f32], state: &mut [f32]) {
    let channels = shape.channels;
    let (past, present) = taps.split_at((shape.taps - 1) * channels);
    for channel in 0..channels {
        let input = x[channel];
        let mut sum = present[channel] * input;
        for tap in 0..shape.taps - 1 {
            sum += past[tap * channels + channel] * state[tap * channels + channel];
        }
        x[channel] = silu(sum);
        for tap in 1..shape.taps - 1 {
            state[(tap - 1) * channels + channel] = state[tap * channels + channel];
        }
        if shape.taps > 1 {
            state[(shape.taps - 2) * channels + channel] = input;
        }
    }
}
