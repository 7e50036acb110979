use std::slice::from_ref;

use super::*;
use crate::backend::Backend;
use crate::check::{Noise, error_ratio, widen};
use crate::cuda::on_card;
use crate::linear::reference;
use crate::quant::encoder;
use crate::rms_norm;

fn weight(ty: WeightType, rows: usize, cols: usize) -> Weight {
    seeded_weight(14, ty, rows, cols)
}

fn seeded_weight(seed: u64, ty: WeightType, rows: usize, cols: usize) -> Weight {
    let values = Noise::new(seed).values(rows * cols, 0.5);
    let mut bytes = vec![0; rows * cols / ty.block_elements() * ty.block_bytes()];
    encoder(ty).expect("a format that can be written")(&values, &mut bytes);
    Weight::new(ty, rows, cols, bytes.into())
}

/// Blocks of any bits whose half-precision fields are near one, extremes of all others included.
fn any_blocks(ty: WeightType, rows: usize, cols: usize) -> Weight {
    use WeightType::{MXFP4, Q2_K, Q3_K, Q4_1, Q4_K, Q5_1, Q5_K, Q6_K};
    let (mut noise, size) = (Noise::new(13), ty.block_bytes());
    let count = rows * cols / ty.block_elements() * size;
    let mut bytes: Vec<u8> = (0..count).map(|_| noise.bits() as u8).collect();
    for (at, block) in bytes.chunks_exact_mut(size).enumerate() {
        match at % 5 {
            0 => block.fill(0xff),
            1 => block.fill(0x80),
            _ => {}
        }
        let halves: &[usize] = match ty {
            Q3_K | Q6_K => &[size - 1],
            Q2_K => &[81, 83],
            Q4_K | Q5_K | Q4_1 | Q5_1 => &[1, 3],
            MXFP4 => &[],
            _ => &[1],
        };
        halves.iter().for_each(|at| block[*at] = 0x3c);
        match ty {
            MXFP4 => block[0] = 120 + at as u8 % 10,
            WeightType::F32 => block[3] = 0x3f,
            _ => {}
        }
    }
    Weight::new(ty, rows, cols, bytes.into())
}

fn product(
    cuda: &mut Cuda,
    matrices: &[Matrix],
    x: &[f32],
    norm: Option<&Buffer<f32>>,
) -> Vec<f32> {
    let cols = matrices[0].cols;
    let rows = x.len() / cols;
    let x = on_card::tensor(cuda, cols, x);
    let outputs = matrices.iter().map(|matrix| matrix.rows).sum();
    let mut out = on_card::poisoned(cuda, rows, outputs);
    let input = Input { norm: norm.map(|norm| (norm, 1e-6)), ..Input::of(&x) };
    linear(cuda, &input, rows, matrices, &mut out, Place::START);
    on_card::values(cuda, &out)
}

/// E1 on a card. Quantised weights meet activations of 11 bits, float ones of 16.
#[test]
fn the_kernels_equal_the_reference_on_a_card() {
    use WeightType::{BF16, F16, F32, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0};
    let Some(mut cuda) = on_card::cuda() else { return };
    for (ty, bound) in [
        (F32, 3e-5),
        (F16, 5e-4),
        (BF16, 3e-5),
        (Q8_0, 5e-4),
        (Q4_0, 5e-4),
        (Q4_K, 5e-4),
        (Q5_K, 5e-4),
        (Q6_K, 5e-4),
    ] {
        // Rows of 100 columns are not for every kernel.
        let odd = (matches!(ty, F32 | F16 | BF16)).then_some((37, 100));
        for (rows, cols) in [(37, 256), (1000, 512), (64, 17408)].into_iter().chain(odd) {
            let weight = weight(ty, rows, cols);
            let matrix = cuda.matrix(&weight);
            assert_eq!(cuda.ready(), Ok(()));
            for tokens in [1, 2, 3, 8, 9, 17, 40, 64, 70] {
                let x = Noise::new(15).values(tokens * cols, 2.0);
                let want = reference::linear(&weight, &widen(&x));
                let got = product(&mut cuda, from_ref(&matrix), &x, None);
                let error = error_ratio(&got, &want);
                // Many rows are multiplied by the library, from one bfloat16 where weights are.
                let bound = match ty {
                    BF16 if tokens > MOST_ROWS => 4e-3,
                    F32 | BF16 => bound,
                    // Weights are rounded too.
                    _ if tokens >= wide::FEWEST_ROWS => 7e-4,
                    _ => bound,
                };
                assert!(error <= bound, "{ty} {rows}x{cols}, {tokens} tokens: {error}");
            }
        }
    }
}

/// E4 of this operation: among steps of one or two rows, among those of 3 to 8 and among those of 9
/// to 64, a row's result is the same bit for bit whoever else is in the step; from one kind to
/// another it is rounded anew.
#[test]
fn rows_do_not_depend_on_one_another_on_a_card() {
    use WeightType::{BF16, Q4_K, Q5_K, Q6_K, Q8_0};
    let Some(mut cuda) = on_card::cuda() else { return };
    for ty in [BF16, Q4_K, Q5_K, Q6_K, Q8_0] {
        let matrix = cuda.matrix(&weight(ty, 700, 2304));
        let norm = cuda.vector(&Noise::new(3).values(2304, 1.0));
        assert_eq!(cuda.ready(), Ok(()));
        let x = Noise::new(16).values(40 * 2304, 1.0);
        for norm in [None, Some(&norm)] {
            let mut some = |rows| product(&mut cuda, from_ref(&matrix), &x[..rows * 2304], norm);
            let [many, few, two] = [40, 8, 2].map(&mut some);
            for rows in [9, 16, 17, 33] {
                assert!(some(rows) == many[..rows * 700], "{ty}, {rows} rows");
            }
            for rows in [3, 5] {
                assert!(some(rows) == few[..rows * 700], "{ty}, {rows} rows");
            }
            assert!(some(1) == two[..700], "{ty}, one row");
            let error = error_ratio(&few, &widen(&many[..8 * 700]));
            assert!(error <= 7e-4, "{ty}: eight of 40 rows and eight alone differ by {error}");
            let error = error_ratio(&two, &widen(&few[..2 * 700]));
            assert!(error <= 1e-4, "{ty}: two of eight rows and two alone differ by {error}");
        }
    }
}

/// The head has no rows in a step that wants no logits.
#[test]
fn no_rows_are_left_alone_on_a_card() {
    let Some(mut cuda) = on_card::cuda() else { return };
    let matrix = cuda.matrix(&weight(WeightType::Q4_K, 16, 256));
    assert_eq!(cuda.ready(), Ok(()));
    let x = on_card::tensor(&cuda, 256, &[1.0; 256]);
    let mut out = on_card::tensor(&cuda, 16, &[7.0; 16]);
    linear(&cuda, &Input::of(&x), 0, from_ref(&matrix), &mut out, Place::START);
    assert_eq!(on_card::values(&cuda, &out), [7.0; 16]);
}

/// Blocks take whole tiles, which are not alike: the last of these four finds none left.
#[test]
fn a_block_may_have_no_tile_on_a_card() {
    use WeightType::{F32, Q8_0};
    let Some(mut cuda) = on_card::cuda() else { return };
    let weights = [weight(Q8_0, 16, 256), weight(F32, 48, 256)];
    let matrices: Vec<Matrix> = weights.iter().map(|weight| cuda.matrix(weight)).collect();
    assert_eq!(cuda.ready(), Ok(()));
    for rows in [1, 2] {
        let x = Noise::new(7).values(rows * 256, 2.0);
        let mut want = Vec::new();
        for x in x.chunks_exact(256) {
            weights.iter().for_each(|weight| want.extend(reference::linear(weight, &widen(x))));
        }
        let error = error_ratio(&product(&mut cuda, &matrices, &x, None), &want);
        assert!(error <= 5e-4, "{rows} rows: {error}");
    }
}

/// Gates and what they gate are multiplied in the launch that makes them, for one and two rows;
/// more than a tile, fewer tiles than blocks, and more.
#[test]
fn gates_meet_what_they_gate_on_a_card() {
    use WeightType::{BF16, Q4_K, Q6_K};
    let Some(mut cuda) = on_card::cuda() else { return };
    let shapes = [(Q4_K, 300, 768), (Q6_K, 6000, 1024), (BF16, 40, 256), (Q4_K, 9728, 512)];
    for (ty, rows, cols) in shapes {
        let weights = [14, 15].map(|seed| seeded_weight(seed, ty, rows, cols));
        let matrices = weights.each_ref().map(|weight| cuda.matrix(weight));
        let norm = Noise::new(5).values(cols, 1.5);
        let norm_on_card = cuda.vector(&norm);
        assert_eq!(cuda.ready(), Ok(()));
        for tokens in [1, 2] {
            let x = Noise::new(6).values(tokens * cols, 2.0);
            let mut want = Vec::new();
            for x in x.chunks_exact(cols) {
                let eps = f64::from(1e-6_f32);
                let x = rms_norm::reference::rms_norm(&widen(x), &widen(&norm), eps);
                let [gate, up] = weights.each_ref().map(|weight| reference::linear(weight, &x));
                let silu = |gate: f64| gate / (1.0 + (-gate).exp());
                want.extend(gate.iter().zip(up).map(|(gate, up)| silu(*gate) * up));
            }
            let x = on_card::tensor(&cuda, cols, &x);
            let mut out = on_card::poisoned(&cuda, tokens, rows);
            let input = Input { norm: Some((&norm_on_card, 1e-6)), ..Input::of(&x) };
            assert!(gate_up(&cuda, &input, tokens, &matrices, &mut out), "{ty}: it fits");
            let error = error_ratio(&on_card::values(&cuda, &out), &want);
            assert!(error <= 1e-3, "{ty} {rows}x{cols}, {tokens} rows: {error}");
        }
    }
}

/// `silu(gate) * up` is multiplied, whatever the number of rows, and added.
#[test]
fn gated_rows_equal_the_reference_on_a_card() {
    let Some(mut cuda) = on_card::cuda() else { return };
    let weight = weight(WeightType::Q4_K, 300, 768);
    let matrix = cuda.matrix(&weight);
    assert_eq!(cuda.ready(), Ok(()));
    for rows in [1, 3, 30, 70] {
        let x = Noise::new(31).values(rows * 2 * 768, 2.0);
        let gated: Vec<f64> = (x.chunks_exact(2 * 768))
            .flat_map(|row| {
                let (gate, up) = row.split_at(768);
                let silu = |gate: f64| gate / (1.0 + (-gate).exp());
                gate.iter().zip(up).map(move |(g, u)| silu(f64::from(*g)) * f64::from(*u))
            })
            .collect();
        let want = reference::linear(&weight, &gated);
        let x = on_card::tensor(&cuda, 2 * 768, &x);
        let mut out = on_card::tensor(&cuda, 300, &vec![0.0; rows * 300]);
        let place = Place { add: true, ..Place::START };
        linear(&cuda, &Input::gated(&x), rows, from_ref(&matrix), &mut out, place);
        let error = error_ratio(&on_card::values(&cuda, &out), &want);
        assert!(error <= 7e-4, "{rows} rows: {error}");
    }
}

/// Parts of several formats, whose last tiles are not full, after a norm, written and added.
#[test]
fn parts_lie_side_by_side_on_a_card() {
    use WeightType::{BF16, F32, Q4_K, Q6_K, Q8_0};
    let Some(mut cuda) = on_card::cuda() else { return };
    let (types, cols) = ([Q4_K, Q6_K, F32, BF16, Q8_0], 1024);
    let weights: Vec<Weight> = (types.iter().zip([100, 48, 33, 205, 1]))
        .map(|(ty, rows)| weight(*ty, rows, cols))
        .collect();
    let matrices: Vec<Matrix> = weights.iter().map(|weight| cuda.matrix(weight)).collect();
    let norm = Noise::new(5).values(cols, 1.5);
    let norm_on_card = cuda.vector(&norm);
    assert_eq!(cuda.ready(), Ok(()));
    for rows in [1, 7, 20, 50] {
        let x = Noise::new(6).values(rows * cols, 2.0);
        let mut want = Vec::new();
        for x in x.chunks_exact(cols) {
            let x = rms_norm::reference::rms_norm(&widen(x), &widen(&norm), f64::from(1e-6_f32));
            weights.iter().for_each(|weight| want.extend(reference::linear(weight, &x)));
        }
        let got = product(&mut cuda, &matrices, &x, Some(&norm_on_card));
        let error = error_ratio(&got, &want);
        assert!(error <= 7e-4, "{rows} rows: {error}");
        let x = on_card::tensor(&cuda, cols, &x);
        let before = Noise::new(8).values(rows * 387, 1.0);
        let mut out = on_card::tensor(&cuda, 387, &before);
        let input = Input { norm: Some((&norm_on_card, 1e-6)), ..Input::of(&x) };
        let place = Place { add: true, ..Place::START };
        linear(&cuda, &input, rows, &matrices, &mut out, place);
        let sums: Vec<f32> = got.iter().zip(&before).map(|(got, before)| got + before).collect();
        let error = error_ratio(&on_card::values(&cuda, &out), &widen(&sums));
        assert!(error <= 1e-7, "{rows} rows, added: {error}");
    }
}

/// Requirement 111 rests on this: a broken input is not rounded to something plausible, and spoils
/// no other row. A large one is no broken one.
#[test]
fn inputs_that_are_not_finite_stay_so_on_a_card() {
    let Some(mut cuda) = on_card::cuda() else { return };
    for ty in [WeightType::Q4_K, WeightType::Q6_K, WeightType::BF16] {
        let matrix = cuda.matrix(&weight(ty, 40, 512));
        assert_eq!(cuda.ready(), Ok(()));
        for rows in [1, 3, 9, 33] {
            let mut x = vec![0.5; rows * 512];
            for broken in [f32::NAN, f32::INFINITY] {
                x[77] = broken;
                let got = product(&mut cuda, from_ref(&matrix), &x, None);
                assert!(got[..40].iter().all(|value| !value.is_finite()), "{ty}");
                assert!(got[40..].iter().all(|value| value.is_finite()), "{ty}");
            }
            x[77] = 1e5;
            let got = product(&mut cuda, from_ref(&matrix), &x, None);
            assert!(got.iter().all(|value| value.is_finite()), "{ty}");
        }
    }
}

/// Every format is kept as the numbers that its definition says, and found row by row.
#[test]
fn any_block_is_repacked_as_it_is_defined_on_a_card() {
    let Some(mut cuda) = on_card::cuda() else { return };
    for ty in WeightType::all() {
        let (rows, cols) = (50, 512);
        let weight = any_blocks(ty, rows, cols);
        let matrix = cuda.matrix(&weight);
        assert_eq!(cuda.ready(), Ok(()));
        cuda.begin_step(on_card::step(&[(rows + 1, 0)], 16));
        let mut out = on_card::poisoned(&cuda, rows + 1, cols);
        cuda.embed(&matrix, &mut out);
        cuda.end_step();
        let (got, want) = (on_card::values(&cuda, &out), weight.to_f32());
        assert!(got[rows * cols..].iter().all(|value| *value == 0.0), "{ty}: no such row");
        let got = &got[..rows * cols];
        match ty {
            WeightType::F32 => assert!(error_ratio(got, &widen(&want)) <= 1e-5, "{ty}"),
            WeightType::IQ4_XS | WeightType::Q2_K | WeightType::Q4_1 | WeightType::Q5_1 => {
                assert!(error_ratio(got, &widen(&want)) <= 3e-4, "{ty}");
            }
            _ => assert!(got == want, "{ty}"),
        }
    }
}
