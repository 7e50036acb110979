use super::cpu::{Scratch, softplus};
use super::{DeltaShape, HeadOrder, reference};
use crate::check::{Noise, error_ratio, widen};

fn shape(key_heads: usize, value_heads: usize, order: HeadOrder) -> DeltaShape {
    DeltaShape { key_heads, value_heads, key_dim: 32, value_dim: 24, order }
}

/// Rows of `cols` elements as columns.
fn transposed(matrix: &[f32], cols: usize) -> Vec<f32> {
    let column = |at: usize| matrix.iter().skip(at).step_by(cols).copied();
    (0..cols).flat_map(column).collect()
}

/// Errors of output and final state against the recurrence in double precision.
fn errors(shape: &DeltaShape, rows: &[Vec<f32>], decay: f32, initial: f32) -> (f64, f64) {
    let wide: Vec<Vec<f64>> = rows.iter().map(|row| widen(row)).collect();
    let mut worst = (0.0f64, 0.0f64);
    for head in 0..shape.value_heads {
        let start = Noise::new(9).values(shape.head_state(), initial);
        let mut want_state = widen(&start);
        let want = reference::gated_delta_rule(
            shape,
            head,
            &wide,
            f64::from(decay),
            0.25,
            &mut want_state,
        );
        let mut state = transposed(&start, shape.key_dim);
        let mut got = vec![f32::NAN; rows.len() * shape.value_dim];
        let mut scratch = Scratch::default();
        for (row, out) in rows.iter().zip(got.chunks_exact_mut(shape.value_dim)) {
            let state = &mut state;
            let of = |first, width| &row[first..first + width];
            let (q, v) = (shape.key_head(head) * shape.key_dim, head * shape.value_dim);
            let k = shape.key_cols() + q;
            scratch.begin(of(q, shape.key_dim), of(k, shape.key_dim));
            let v = of(2 * shape.key_cols() + v, shape.value_dim);
            let b = shape.b_offset() + head;
            let (b, a) = (row[b], row[b + shape.value_heads]);
            scratch.value_head(v, b, a, decay, 0.25, state, out);
        }
        worst.0 = worst.0.max(error_ratio(&got, &want));
        worst.1 = worst.1.max(error_ratio(&transposed(&state, shape.value_dim), &want_state));
    }
    worst
}

fn random_rows(shape: &DeltaShape, tokens: usize) -> Vec<Vec<f32>> {
    let mut noise = Noise::new(10);
    (0..tokens).map(|_| noise.values(shape.cols(), 1.5)).collect()
}

#[test]
fn the_kernel_equals_its_reference() {
    for order in [HeadOrder::Grouped, HeadOrder::Tiled] {
        for (key_heads, value_heads) in [(1, 1), (2, 2), (2, 4), (2, 6)] {
            let shape = shape(key_heads, value_heads, order);
            for tokens in [1, 2, 65] {
                let (output, state) = errors(&shape, &random_rows(&shape, tokens), -1.5, 1.0);
                assert!(output <= 1e-5 && state <= 1e-5, "{shape:?}: {output} {state}");
            }
        }
    }
}

/// Requirements 48 and 49: near-identical keys with beta near one for a long time, gates at their
/// limits, extreme values and a zero head.
#[test]
fn adversarial_inputs_stay_close() {
    let shape = shape(2, 4, HeadOrder::Grouped);
    let edit = |change: &dyn Fn(usize, &mut Vec<f32>)| {
        let mut rows = random_rows(&shape, 400);
        for (token, row) in rows.iter_mut().enumerate() {
            change(token, row);
        }
        rows
    };
    let keys = shape.key_cols()..2 * shape.key_cols();
    let b = shape.b_offset()..shape.b_offset() + 4;
    let a = shape.b_offset() + 4..shape.b_offset() + 8;
    let first = random_rows(&shape, 1).remove(0);
    let cases: [(&str, Vec<Vec<f32>>); 7] = [
        (
            "identical keys",
            edit(&|_, row| {
                row[keys.clone()].copy_from_slice(&first[keys.clone()]);
                row[b.clone()].fill(8.0);
                row[a.clone()].fill(-30.0);
            }),
        ),
        (
            "alternating keys",
            edit(&|token, row| {
                let sign = if token % 2 == 0 { 1.0 } else { -1.0 };
                for at in keys.clone() {
                    row[at] = sign * first[at];
                }
                row[b.clone()].fill(8.0);
            }),
        ),
        ("saturated beta", edit(&|_, row| row[b.clone()].fill(20.0))),
        ("no beta", edit(&|_, row| row[b.clone()].fill(-20.0))),
        (
            "sudden oblivion",
            edit(&|token, row| {
                if token == 33 {
                    row[a.clone()].fill(90.0);
                }
            }),
        ),
        (
            "zero keys",
            edit(&|_, row| {
                // Without decay: a state that fades below the smallest f32 has no relative error.
                row[keys.clone()].fill(0.0);
                row[a.clone()].fill(-30.0);
            }),
        ),
        (
            "large values",
            edit(&|_, row| {
                row[2 * shape.key_cols()..shape.z_offset()].iter_mut().for_each(|v| *v *= 1e4);
            }),
        ),
    ];
    for (name, rows) in cases {
        let (output, state) = errors(&shape, &rows, -1.0, 10.0);
        assert!(output <= 2e-5 && state <= 5e-5, "{name}: output {output}, state {state}");
    }
}

/// Requirement 105.
#[test]
fn softplus_guards_large_inputs() {
    assert_eq!(softplus(1000.0), 1000.0);
    assert!((softplus(0.0) - std::f32::consts::LN_2).abs() < 1e-7);
    assert!(softplus(-1000.0) == 0.0);
}

/// The mutation that must be caught: the other order of value heads.
#[test]
fn the_wrong_head_order_is_seen() {
    let grouped = shape(2, 4, HeadOrder::Grouped);
    let tiled = DeltaShape { order: HeadOrder::Tiled, ..grouped };
    let heads = |shape: DeltaShape| (0..4).map(|head| shape.key_head(head)).collect::<Vec<_>>();
    assert_eq!(heads(grouped), [0, 0, 1, 1]);
    assert_eq!(heads(tiled), [0, 1, 0, 1]);
    for shape in [grouped, tiled] {
        for key in 0..2 {
            let readers: Vec<_> = (0..4).filter(|head| shape.key_head(*head) == key).collect();
            assert_eq!(shape.readers(key).collect::<Vec<_>>(), readers);
        }
    }
}
