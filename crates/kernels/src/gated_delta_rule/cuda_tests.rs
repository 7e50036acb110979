use super::*;
use crate::backend::{Backend, SequenceRows};
use crate::causal_conv1d::{self, ConvShape};
use crate::check::{Noise, error_ratio, widen};
use crate::cuda::on_card;
use crate::gated_delta_rule::reference;
use crate::rms_norm::reference::rms_norm;

const EPS: f32 = 1e-6;
const SLOTS: usize = 12;

/// A card whose steps run launch by launch, for each has memory of its own.
fn card() -> Option<Cuda> {
    on_card::cuda().map(Cuda::without_graphs)
}

/// A layer and what it remembers at first, in all slots.
#[derive(Clone)]
struct Case {
    layer: DeltaLayer<Vec<f32>>,
    ring: Vec<f32>,
    memory: Vec<f32>,
}

fn case(heads: (usize, usize), dim: usize, order: HeadOrder, initial: f32) -> Case {
    let (key_heads, value_heads) = heads;
    let shape = DeltaShape { key_heads, value_heads, key_dim: dim, value_dim: dim, order };
    let conv = ConvShape { channels: shape.conv_cols(), taps: 4 };
    let noise = &mut Noise::new(21);
    let decay = noise.values(value_heads, 1.0).iter().map(|x| -0.05 - 1.5 * x * x).collect();
    let layer = DeltaLayer {
        shape,
        conv,
        taps: noise.values(4 * conv.channels, 0.7),
        decay,
        dt_bias: noise.values(value_heads, 0.5),
        norm: noise.values(dim, 1.0),
        eps: EPS,
    };
    let ring = noise.values(SLOTS * conv.state_elements(), 1.5);
    let memory = noise.values(SLOTS * shape.state_elements(), initial);
    Case { layer, ring, memory }
}

impl Case {
    fn rows(&self, count: usize) -> Vec<Vec<f32>> {
        let noise = &mut Noise::new(22);
        (0..count).map(|_| noise.values(self.layer.shape.cols(), 1.5)).collect()
    }
}

/// What a step leaves: outputs, rings and states of all slots.
struct Left<T> {
    out: Vec<T>,
    ring: Vec<T>,
    memory: Vec<T>,
}

/// One sequence over the reference: the gated norm's output; its slot's ring and state are updated.
fn sequence(
    layer: &DeltaLayer<Vec<f32>>,
    at: &SequenceRows,
    rows: &[Vec<f32>],
    left: &mut Left<f64>,
) -> Vec<f64> {
    let (shape, channels) = (&layer.shape, layer.conv.channels);
    let ring = &mut left.ring[at.slot * 4 * channels..][..4 * channels];
    let past = (at.start.saturating_sub(3)..at.start).flat_map(|position| {
        let row: Vec<f64> = ring[position % 4 * channels..][..channels].to_vec();
        row
    });
    let mut raw: Vec<f64> = past.collect();
    let history = raw.len();
    raw.extend(rows.iter().flat_map(|row| widen(&row[..channels])));
    let mixed = causal_conv1d::reference::causal_conv1d(&layer.conv, &raw, &widen(&layer.taps));
    let wide: Vec<Vec<f64>> = (rows.iter().zip(mixed[history..].chunks_exact(channels)))
        .map(|(row, mixed)| [mixed, &widen(&row[channels..])].concat())
        .collect();
    for (token, row) in rows.iter().enumerate() {
        let to = (at.start + token) % 4 * channels;
        ring[to..to + channels].copy_from_slice(&widen(&row[..channels]));
    }
    let dim = shape.value_dim;
    let mut out = vec![0.0; rows.len() * shape.value_cols()];
    for head in 0..shape.value_heads {
        let first = at.slot * shape.state_elements() + head * shape.head_state();
        let state = &mut left.memory[first..first + shape.head_state()];
        if at.start == 0 {
            state.fill(0.0);
        }
        let (decay, dt_bias) = (f64::from(layer.decay[head]), f64::from(layer.dt_bias[head]));
        let o = reference::gated_delta_rule(shape, head, &wide, decay, dt_bias, state);
        for (token, o) in o.chunks_exact(dim).enumerate() {
            let normed = rms_norm(o, &widen(&layer.norm), f64::from(layer.eps));
            let z = &wide[token][shape.z_offset() + head * dim..][..dim];
            let to = &mut out[(token * shape.value_heads + head) * dim..][..dim];
            for ((to, normed), z) in to.iter_mut().zip(normed).zip(z) {
                *to = normed * z / (1.0 + (-z).exp());
            }
        }
    }
    out
}

fn want(case: &Case, inputs: &StepInputs, rows: &[Vec<f32>]) -> Left<f64> {
    let (ring, memory) = (widen(&case.ring), widen(&case.memory));
    let mut left = Left { out: Vec::new(), ring, memory };
    for at in &inputs.sequences {
        let own = &rows[at.first_row..at.first_row + at.rows];
        let out = sequence(&case.layer, at, own, &mut left);
        left.out.extend(out);
    }
    left
}

/// The step on the card; unwritten outputs are NaN.
fn got(cuda: &mut Cuda, case: &Case, inputs: &StepInputs, rows: &[Vec<f32>]) -> Left<f32> {
    let shape = case.layer.shape;
    let layer = cuda.delta_layer(case.layer.clone());
    cuda.ready().expect("the test's layer fits");
    let state = |values: &[f32]| {
        let elements = values.len() / SLOTS;
        State { values: on_card::buffer(cuda, values), elements }
    };
    let mut state = DeltaState { conv: state(&case.ring), memory: state(&case.memory) };
    let mut projected = on_card::tensor(cuda, shape.cols(), &rows.concat());
    let mut out = on_card::poisoned(cuda, rows.len().next_power_of_two(), shape.value_cols());
    cuda.begin_step(inputs.clone());
    cuda.delta_net(&layer, &mut projected, &mut state, &mut out);
    cuda.end_step();
    let mut left = Left {
        out: on_card::values(cuda, &out),
        ring: state.conv.values.get(0..case.ring.len()),
        memory: state.memory.values.get(0..case.memory.len()),
    };
    left.out.truncate(rows.len() * shape.value_cols());
    left
}

/// Outputs and states within the limits, rings exact.
fn check(cuda: &mut Cuda, case: &Case, sequences: &[(usize, usize)], limit: f64, name: &str) {
    let inputs = on_card::step(sequences, 16);
    let rows = case.rows(inputs.rows());
    check_rows(cuda, case, &inputs, &rows, (limit, limit), name);
}

fn check_rows(
    cuda: &mut Cuda,
    case: &Case,
    inputs: &StepInputs,
    rows: &[Vec<f32>],
    limits: (f64, f64),
    name: &str,
) {
    let want = want(case, inputs, rows);
    let got = got(cuda, case, inputs, rows);
    let out = error_ratio(&got.out, &want.out);
    let mut memory = 0.0_f64;
    let size = case.layer.shape.state_elements();
    for slot in 0..SLOTS {
        let (got, own) = (&got.memory[slot * size..][..size], slot * size..(slot + 1) * size);
        if inputs.sequences.iter().any(|sequence| sequence.slot == slot) {
            memory = memory.max(error_ratio(got, &want.memory[own]));
        } else {
            assert_eq!(got, &case.memory[own], "{name}: slot {slot} is nobody's");
        }
    }
    assert!(out <= limits.0 && memory <= limits.1, "{name}: output {out}, state {memory}");
    assert!(error_ratio(&got.ring, &want.ring) == 0.0, "{name}: other inputs are kept");
}

const ORDERS: [HeadOrder; 2] = [HeadOrder::Grouped, HeadOrder::Tiled];

#[test]
fn grids_follow_the_shape() {
    assert_eq!(recurrent_kernel(128, 1), ("delta_decode_128", 512));
    assert_eq!(recurrent_kernel(128, 5), ("delta_recurrent_128", 512));
    assert_eq!(recurrent_kernel(64, 1), ("delta_recurrent_64", 256));
    let shape = case((16, 48), 128, HeadOrder::Tiled, 1.0).layer.shape;
    let card = |shared_bytes| Card {
        name: String::new(),
        generation: 90,
        multiprocessors: 1,
        l2_bytes: 0,
        shared_bytes,
        memory_bytes: 0,
    };
    let stages = |shared: u32| {
        let (name, grid) = scan_kernel(&shape, 3, &card(shared));
        assert_eq!(grid.blocks, [2, 48, 3]);
        assert!(grid.shared + 1024 <= shared, "{name}");
        name
    };
    let names = [227 << 10, 163 << 10, 99 << 10].map(stages);
    assert_eq!(names, ["delta_scan_3", "delta_scan_2", "delta_scan_1"]);
}

#[test]
fn odd_shapes_are_refused() {
    let mut layer = case((1, 1), 32, HeadOrder::Grouped, 1.0).layer;
    assert_eq!(unsupported(&layer), None);
    layer.shape.value_dim = 64;
    assert!(unsupported(&layer).is_some_and(|reason| reason.contains("keys of 32")));
    layer.shape.value_dim = 32;
    layer.conv.taps = 3;
    assert!(unsupported(&layer).is_some_and(|reason| reason.contains("3 taps")));
}

/// E1 on a card, by the kernel that goes token by token; also where chunks are not possible.
#[test]
fn tokens_equal_the_recurrence_on_a_card() {
    let Some(mut cuda) = card() else { return };
    for order in ORDERS {
        for (heads, dim) in [((2, 4), 32), ((1, 3), 64), ((2, 6), 128), ((1, 1), 128)] {
            let case = case(heads, dim, order, 1.0);
            let name = format!("{heads:?} {dim} {order:?}");
            check(&mut cuda, &case, &[(1, 0), (1, 7), (1, 2)], 1e-5, &name);
            check(&mut cuda, &case, &[(1, 0), (5, 3), (12, 1), (2, 0)], 1e-5, &name);
        }
        let odd = case((1, 1), 128, order, 1.0);
        check(&mut cuda, &odd, &[(70, 5)], 1e-5, "a projection whose rows are not aligned");
    }
}

/// E1 on a card, by chunks, next to sequences that go token by token.
#[test]
fn chunks_equal_the_recurrence_on_a_card() {
    let Some(mut cuda) = card() else { return };
    for order in ORDERS {
        for heads in [(2, 2), (2, 4), (2, 6), (1, 4)] {
            let case = case(heads, 128, order, 1.0);
            let name = format!("{heads:?} {order:?}");
            check(&mut cuda, &case, &[(130, 0), (17, 5), (1, 9), (64, 2), (12, 0)], 1e-3, &name);
        }
    }
    let case = case((1, 2), 128, HeadOrder::Grouped, 1.0);
    for rows in (13..=130).step_by(3) {
        check(&mut cuda, &case, &[(rows, rows % 4)], 1e-3, &format!("{rows} rows"));
    }
}

/// Requirements 48, 49 and 105 on a card: keys that are alike while beta is near one, gates at
/// their limits, zero heads, large values and states, for both kernels.
#[test]
fn adversarial_inputs_stay_close_on_a_card() {
    let Some(mut cuda) = card() else { return };
    let usual = case((2, 4), 128, HeadOrder::Grouped, 1.0);
    let shape = usual.layer.shape;
    let keys = shape.key_cols()..2 * shape.key_cols();
    let values = 2 * shape.key_cols()..shape.z_offset();
    let (b, a) = (shape.b_offset()..shape.b_offset() + 4, shape.b_offset() + 4..shape.cols());
    let first = usual.rows(1).remove(0);
    let mut hard = usual.clone();
    hard.layer.decay.fill(-1.0);
    let mut present = usual.clone();
    for taps in present.layer.taps[..3 * present.layer.conv.channels].chunks_exact_mut(1) {
        taps.fill(0.0);
    }
    let large = case((2, 4), 128, HeadOrder::Grouped, 1e3);
    type Edit<'a> = &'a dyn Fn(usize, &mut [f32]);
    let cases: [(&str, &Case, f64, Edit<'_>); 13] = [
        ("identical keys", &usual, 1e-2, &|_, row| {
            row[keys.clone()].copy_from_slice(&first[keys.clone()]);
            row[b.clone()].fill(8.0);
            row[a.clone()].fill(-30.0);
        }),
        ("near keys", &usual, 1e-2, &|_, row| {
            keys.clone().for_each(|at| row[at] = first[at] + 0.1 * row[at]);
            row[b.clone()].fill(3.9);
            row[a.clone()].fill(-30.0);
        }),
        // Small inputs, of which SiLU is nearly half.
        ("alternating keys", &present, 1e-2, &|token, row| {
            let sign = if token % 2 == 0 { 0.02 } else { -0.02 };
            keys.clone().for_each(|at| row[at] = sign * first[at]);
            row[b.clone()].fill(8.0);
            row[a.clone()].fill(-30.0);
        }),
        ("saturated beta", &usual, 1e-3, &|_, row| row[b.clone()].fill(20.0)),
        // Writes of a billionth are below f16, so the old state must not fade below them.
        ("no beta", &usual, 1e-3, &|_, row| {
            row[b.clone()].fill(-20.0);
            row[a.clone()].fill(-12.0);
        }),
        ("no decay", &usual, 1e-3, &|_, row| row[a.clone()].fill(-1e3)),
        ("oblivion", &hard, 1e-3, &|_, row| row[a.clone()].fill(1e3)),
        ("oblivion now and then", &hard, 1e-3, &|token, row| {
            row[a.clone()].fill(if token % 5 == 0 { 1e3 } else { -6.0 });
        }),
        ("oblivion once a chunk", &hard, 1e-3, &|token, row| {
            row[a.clone()].fill(if token % 64 == 33 { 90.0 } else { -4.0 });
        }),
        ("zero keys", &usual, 1e-3, &|_, row| {
            row[keys.clone()].fill(0.0);
            row[a.clone()].fill(-1e3);
        }),
        ("a zero query", &usual, 1e-3, &|_, row| row[..128].fill(0.0)),
        ("large values", &usual, 1e-3, &|_, row| {
            row[values.clone()].iter_mut().for_each(|v| *v *= 6e3);
        }),
        ("a large state", &large, 1e-2, &|_, row| row[a.clone()].fill(-8.0)),
    ];
    for (name, case, limit, edit) in cases {
        let inputs = on_card::step(&[(200, 4), (12, 5)], 16);
        let mut rows = case.rows(inputs.rows());
        rows.iter_mut().enumerate().for_each(|(token, row)| edit(token, row));
        check_rows(&mut cuda, case, &inputs, &rows, (limit, limit), name);
        let inputs = on_card::step(&[(12, 4), (12, 5)], 16);
        let rows = &rows[..24];
        check_rows(&mut cuda, case, &inputs, rows, (2e-5, 5e-5), &format!("{name}, by tokens"));
    }
}

/// Requirement 104: where a prompt is cut changes nothing but rounding.
#[test]
fn steps_of_any_size_equal_one_on_a_card() {
    let Some(mut cuda) = card() else { return };
    let whole = case((2, 6), 128, HeadOrder::Tiled, 1.0);
    let rows = whole.rows(600);
    let want = want(&whole, &on_card::step(&[(600, 0)], 16), &rows);
    for size in [1, 2, 3, 5, 64, 511, 512] {
        let (mut case, mut out) = (whole.clone(), Vec::new());
        for (at, rows) in rows.chunks(size).enumerate() {
            let left = got(&mut cuda, &case, &on_card::step(&[(rows.len(), at * size)], 16), rows);
            out.extend(left.out);
            (case.ring, case.memory) = (left.ring, left.memory);
        }
        let limit = if size <= SHORT { 1e-5 } else { 1e-3 };
        let (out, memory) = (error_ratio(&out, &want.out), error_ratio(&case.memory, &want.memory));
        assert!(out <= limit && memory <= limit, "{size}: output {out}, state {memory}");
    }
}

/// Room for three chunks only: a panel begins where the one before ended, also within a sequence.
#[test]
fn small_panels_equal_large_ones_on_a_card() {
    let Some(mut cuda) = card() else { return };
    let case = case((2, 4), 128, HeadOrder::Grouped, 1.0);
    let inputs = on_card::step(&[(300, 0), (100, 6), (3, 1), (250, 2)], 16);
    let rows = case.rows(inputs.rows());
    let large = got(&mut cuda, &case, &inputs, &rows);
    cuda.chunks.tiles = 3;
    let small = got(&mut cuda, &case, &inputs, &rows);
    assert!(large.out == small.out && large.ring == small.ring && large.memory == small.memory);
}

/// A row's bits depend neither on the other sequences of the step nor on how it is padded, and
/// padding touches no slot.
#[test]
fn batches_change_no_bit_on_a_card() {
    let Some(mut cuda) = card() else { return };
    let case = case((2, 4), 128, HeadOrder::Tiled, 1.0);
    let nine: Vec<_> = (0..9).map(|at| (1, 3 * at)).collect();
    let mut inputs = on_card::step(&nine, 16);
    let rows = case.rows(inputs.rows());
    let together = got(&mut cuda, &case, &inputs, &rows);
    let cols = case.layer.shape.value_cols();
    for at in inputs.sequences.clone() {
        let mut alone = StepInputs { tokens: vec![0], logit_rows: vec![0], ..inputs.clone() };
        alone.sequences = vec![SequenceRows { first_row: 0, ..at.clone() }];
        let alone = got(&mut cuda, &case, &alone, &rows[at.first_row..at.first_row + 1]);
        assert_eq!(alone.out, together.out[at.first_row * cols..][..cols]);
    }
    // Next to a sequence with more rows another kernel does the work, to the same bits.
    let last = inputs.sequences[0].clone();
    inputs.sequences.push(SequenceRows { first_row: 9, rows: 5, start: 0, slot: 11, ..last });
    inputs.tokens.extend([0; 5]);
    let rows = [&rows[..], &case.rows(5)].concat();
    let mixed = got(&mut cuda, &case, &inputs, &rows);
    assert_eq!(mixed.out[..9 * cols], together.out);
}

/// The mutations that must be caught: lost inputs of the convolution, and decay behind the write.
#[test]
fn mutations_are_seen_on_a_card() {
    let Some(mut cuda) = card() else { return };
    let right = case((2, 4), 128, HeadOrder::Grouped, 1.0);
    for sequences in [&[(5, 6)], &[(70, 6)]] {
        let inputs = on_card::step(sequences, 16);
        let rows = right.rows(inputs.rows());
        let want = want(&right, &inputs, &rows);
        let mut lost = right.clone();
        lost.ring.fill(0.0);
        let got_lost = got(&mut cuda, &lost, &inputs, &rows);
        assert!(error_ratio(&got_lost.out, &want.out) > 1e-2, "lost inputs");
        // The decay of each token moved to the next one is decay behind the write.
        let mut moved = rows.clone();
        let a = right.layer.shape.b_offset() + 4..right.layer.shape.cols();
        for token in 1..rows.len() {
            moved[token][a.clone()].copy_from_slice(&rows[token - 1][a.clone()]);
        }
        moved[0][a].fill(-1e3);
        let got_late = got(&mut cuda, &right, &inputs, &moved);
        assert!(error_ratio(&got_late.out, &want.out) > 1e-2, "late decay");
    }
}
