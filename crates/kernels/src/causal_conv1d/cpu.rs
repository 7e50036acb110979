//! The convolution on the CPU.

use super::ConvShape;
use crate::cpu::vector::silu;
use crate::cpu::widest::widest;

/// One token in place: `x` is `[channels]`, `taps` and `state` are `[taps, channels]`. Row
/// `position % taps` of the state takes the token's raw input; the others hold those before it.
pub fn causal_conv1d(
    shape: &ConvShape,
    x: &mut [f32],
    taps: &[f32],
    state: &mut [f32],
    position: usize,
) {
    match shape.taps {
        4 => four_taps(shape.channels, x, taps, state, position),
        _ => any_taps(shape, x, taps, state, position),
    }
}

fn any_taps(shape: &ConvShape, x: &mut [f32], taps: &[f32], state: &mut [f32], position: usize) {
    let ConvShape { channels, taps: count } = *shape;
    for channel in 0..channels {
        let input = x[channel];
        let mut sum = taps[(count - 1) * channels + channel] * input;
        for tap in 0..count - 1 {
            let row = (position + tap + 1) % count;
            sum += taps[tap * channels + channel] * state[row * channels + channel];
        }
        x[channel] = silu::<false>(sum);
        state[position % count * channels + channel] = input;
    }
}

widest! {
    fn four_taps(
        channels: usize,
        x: &mut [f32],
        taps: &[f32],
        state: &mut [f32],
        position: usize,
    ) {
        let (w0, rest) = taps.split_at(channels);
        let (w1, rest) = rest.split_at(channels);
        let (w2, w3) = rest.split_at(channels);
        let (s0, rest) = state.split_at_mut(channels);
        let (s1, rest) = rest.split_at_mut(channels);
        let (s2, s3) = rest.split_at_mut(channels);
        let mut rows = [s0, s1, s2, s3];
        // Oldest first; the last row is the one that this token takes.
        rows.rotate_left((position + 1) % 4);
        let [s0, s1, s2, s3] = rows;
        let (w3, s3, x) = (&w3[..channels], &mut s3[..channels], &mut x[..channels]);
        for at in 0..channels {
            let input = x[at];
            let sum = (w3[at] * input + w0[at] * s0[at]) + (w1[at] * s1[at] + w2[at] * s2[at]);
            s3[at] = input;
            x[at] = silu::<FMA>(sum);
        }
    }
}
