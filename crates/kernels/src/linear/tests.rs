use super::cpu::{Inputs, linear};
use super::reference;
use crate::check::{Noise, error_ratio, widen};
use crate::cpu::pool::Pool;
use crate::quant::{WeightType, encoder};
use crate::weight::Weight;

fn weight(ty: WeightType, rows: usize, cols: usize) -> Weight {
    let values = Noise::new(14).values(rows * cols, 0.5);
    let mut bytes = vec![0; rows * cols / ty.block_elements() * ty.block_bytes()];
    encoder(ty).expect("a format that can be written")(&values, &mut bytes);
    Weight::new(ty, rows, cols, bytes.into())
}

fn product(threads: usize, weight: &Weight, x: &[f32]) -> Vec<f32> {
    let rows = x.len() / weight.cols;
    let mut out = vec![f32::NAN; rows * weight.rows];
    let inputs = Inputs::new(x, weight.cols, &[weight]);
    linear(&Pool::new(threads), &inputs, weight, &mut out, weight.rows, 0, false);
    out
}

/// Float formats lose only to single precision; quantised ones to 8-bit inputs as well, which is
/// 0.4 % of a block's largest input.
#[test]
fn the_kernel_equals_its_reference() {
    use WeightType::{BF16, F16, F32, Q4_K, Q5_K, Q6_K, Q8_0};
    for (ty, bound) in [
        (F32, 1e-6),
        (F16, 1e-6),
        (BF16, 1e-6),
        (Q8_0, 8e-3),
        (Q4_K, 8e-3),
        (Q5_K, 8e-3),
        (Q6_K, 8e-3),
    ] {
        for (rows, cols) in [(1, 256), (37, 512), (64, 768)] {
            let weight = weight(ty, rows, cols);
            for tokens in [1, 3, 17] {
                let x = Noise::new(15).values(tokens * cols, 2.0);
                let want = reference::linear(&weight, &widen(&x));
                let error = error_ratio(&product(2, &weight, &x), &want);
                assert!(error <= bound, "{ty} {rows}x{cols}, {tokens} tokens: {error}");
            }
        }
    }
}

/// A row's result is the same bit for bit whoever else is in the step and however many threads.
#[test]
fn rows_do_not_depend_on_one_another() {
    for ty in [WeightType::F32, WeightType::Q8_0, WeightType::Q4_K] {
        let weight = weight(ty, 50, 256);
        let x = Noise::new(16).values(9 * 256, 1.0);
        let together = product(3, &weight, &x);
        for (x, together) in x.chunks_exact(256).zip(together.chunks_exact(50)) {
            assert_eq!(product(1, &weight, x), together);
        }
    }
}

#[test]
fn parts_lie_side_by_side_and_add() {
    let weight = weight(WeightType::F32, 5, 32);
    let x = Noise::new(17).values(2 * 32, 1.0);
    let alone = product(1, &weight, &x);
    let mut out = vec![1.0; 2 * 8];
    let inputs = Inputs::new(&x, 32, &[&weight]);
    linear(&Pool::new(1), &inputs, &weight, &mut out, 8, 2, true);
    for row in 0..2 {
        assert_eq!(out[row * 8..row * 8 + 2], [1.0, 1.0]);
        assert_eq!(out[row * 8 + 7], 1.0);
        for at in 0..5 {
            assert_eq!(out[row * 8 + 2 + at], 1.0 + alone[row * 5 + at]);
        }
    }
}

/// Requirement 111 rests on this: a broken input is not rounded to something plausible.
#[test]
fn inputs_that_are_not_finite_stay_so() {
    for ty in [WeightType::F32, WeightType::Q8_0, WeightType::Q4_K] {
        for broken in [f32::NAN, f32::INFINITY] {
            let weight = weight(ty, 4, 256);
            let mut x = vec![0.5; 256];
            x[77] = broken;
            assert!(product(1, &weight, &x).iter().all(|value| !value.is_finite()), "{ty}");
        }
    }
}
