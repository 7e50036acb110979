//! The convolution on the CPU.

use super::ConvShape;
use crate::cpu::vector::silu;
use crate::cpu::widest::widest;

/// One token in place: `x` is `[channels]`, `taps` `[taps, channels]`, `state`
/// `[taps - 1, channels]`, oldest first.
pub fn causal_conv1d(shape: &ConvShape, x: &mut [f32], taps: &[f32], state: &mut [f32]) {
    let (past, present) = taps.split_at((shape.taps - 1) * shape.channels);
    match shape.taps {
        4 => four_taps(shape.channels, x, past, present, state),
        _ => any_taps(shape, x, past, present, state),
    }
}

fn any_taps(shape: &ConvShape, x: &mut [f32], past: &[f32], present: &[f32], state: &mut [f32]) {
    let channels = shape.channels;
    for channel in 0..channels {
        let input = x[channel];
        let mut sum = present[channel] * input;
        for tap in 0..shape.taps - 1 {
            sum += past[tap * channels + channel] * state[tap * channels + channel];
        }
        x[channel] = silu::<false>(sum);
        for tap in 1..shape.taps - 1 {
            state[(tap - 1) * channels + channel] = state[tap * channels + channel];
        }
        if shape.taps > 1 {
            state[(shape.taps - 2) * channels + channel] = input;
        }
    }
}

widest! {
    fn four_taps(
        channels: usize,
        x: &mut [f32],
        past: &[f32],
        present: &[f32],
        state: &mut [f32],
    ) {
        let (w0, rest) = past.split_at(channels);
        let (w1, w2) = rest.split_at(channels);
        let (s0, rest) = state.split_at_mut(channels);
        let (s1, s2) = rest.split_at_mut(channels);
        let (w2, w3) = (&w2[..channels], &present[..channels]);
        let (s2, x) = (&mut s2[..channels], &mut x[..channels]);
        for at in 0..channels {
            let input = x[at];
            let sum = (w3[at] * input + w0[at] * s0[at]) + (w1[at] * s1[at] + w2[at] * s2[at]);
            s0[at] = s1[at];
            s1[at] = s2[at];
            s2[at] = input;
            x[at] = silu::<FMA>(sum);
        }
    }
}
