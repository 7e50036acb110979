use super::{ConvShape, cpu, reference};
use crate::check::{Noise, error_ratio, widen};
use crate::cpu::parts::Parts;

/// Every channel of a token, in two calls.
fn token_of(shape: &ConvShape, x: &mut [f32], taps: &[f32], state: &mut [f32], position: usize) {
    let cut = shape.channels / 2;
    let state = Parts::new(state, 1);
    let (low, high) = x.split_at_mut(cut);
    for (first, x) in [(0, low), (cut, high)] {
        let width = x.len();
        // SAFETY: one after the other.
        let ring = |row| unsafe { state.run(row * shape.channels + first, width) };
        cpu::causal_conv1d(shape, first, x, taps, ring, position);
    }
}

/// Requirement 104: the state survives every chunk edge; here every token is a chunk of its own.
#[test]
fn the_kernel_equals_its_reference() {
    for taps in [1, 2, 4] {
        for tokens in [1, 2, 3, 4, 17] {
            let shape = ConvShape { channels: 19, taps };
            let mut noise = Noise::new(7);
            let x = noise.values(tokens * 19, 2.0);
            let weights = noise.values(taps * 19, 1.0);
            let want = reference::causal_conv1d(&shape, &widen(&x), &widen(&weights));
            let mut got = x;
            let mut state = vec![0.0; shape.state_elements()];
            for (token, row) in got.chunks_exact_mut(19).enumerate() {
                token_of(&shape, row, &weights, &mut state, token);
            }
            let error = error_ratio(&got, &want);
            assert!(error <= 1e-6, "{taps} taps, {tokens} tokens: {error}");
        }
    }
}

/// The mutation that must be caught: a state that is lost at a chunk edge.
#[test]
fn a_lost_state_is_seen() {
    let shape = ConvShape { channels: 4, taps: 4 };
    let mut noise = Noise::new(8);
    let x = noise.values(8 * 4, 2.0);
    let weights = noise.values(4 * 4, 1.0);
    let want = reference::causal_conv1d(&shape, &widen(&x), &widen(&weights));
    let mut got = x;
    let mut state = vec![0.0; shape.state_elements()];
    for (token, row) in got.chunks_exact_mut(4).enumerate() {
        if token == 4 {
            state.fill(0.0);
        }
        token_of(&shape, row, &weights, &mut state, token);
    }
    assert!(error_ratio(&got, &want) > 1e-2);
}
