//! The convolution on the CPU.

use super::ConvShape;
use crate::cpu::vector::silu;
use crate::cpu::widest::{fused, widest};

/// Channels from `first` of one token, in place. `taps` are those of all channels; `ring` gives the
/// same channels of a row of the state, of which row `position % taps` takes the token's raw input.
pub fn causal_conv1d<'a>(
    shape: &ConvShape,
    first: usize,
    x: &mut [f32],
    taps: &[f32],
    ring: impl Fn(usize) -> &'a mut [f32],
    position: usize,
) {
    ring(position % shape.taps).copy_from_slice(x);
    x.fill(0.0);
    for tap in 0..shape.taps {
        let weights = &taps[tap * shape.channels + first..][..x.len()];
        // The row after the newest is the oldest.
        add_products(x, weights, ring((position + tap + 1) % shape.taps));
    }
    activate(x);
}

widest! {
    /// `sums += weights * inputs`.
    fn add_products(sums: &mut [f32], weights: &[f32], inputs: &[f32]) {
        for ((sum, weight), input) in sums.iter_mut().zip(weights).zip(inputs) {
            *sum = fused::<FMA>(*weight, *input, *sum);
        }
    }

    fn activate(x: &mut [f32]) {
        for x in x {
            *x = silu::<FMA>(*x);
        }
    }
}
