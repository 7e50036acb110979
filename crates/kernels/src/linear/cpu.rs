//! Linear layers on the CPU.

use std::cell::RefCell;
use std::ops::Range;

pub use super::simd::dot_f32;
use super::simd::{BLOCK, GROUP, dot_i8};
use super::unpack::{self, Row};
use crate::cpu::pool::{Columns, Pool};
use crate::quant::{WeightType, dequantize};
use crate::weight::Weight;

/// Weight rows of one task: enough work to be worth a hand-over, few enough to share evenly.
const ROWS_PER_TASK: usize = 16;

/// Input rows, ready for any weight format.
pub struct Inputs<'a> {
    cols: usize,
    values: &'a [f32],
    rounded: Option<Rounded>,
}

/// Input rows in 8 bits.
struct Rounded {
    /// `[rows, cols]`.
    quants: Vec<i8>,
    /// `[rows, cols / 32]`.
    scales: Vec<f32>,
    /// `[rows, cols / 16]`: the sum of each group's rounded inputs, for weights with minimums.
    sums: Vec<f32>,
}

impl<'a> Inputs<'a> {
    /// `values` is `[rows, cols]`; they are rounded once for all quantised `weights`.
    pub fn new(values: &'a [f32], cols: usize, weights: &[&Weight]) -> Self {
        let rounds = weights.iter().any(|weight| unpack::is_supported(weight.ty));
        Self { cols, values, rounded: rounds.then(|| round(values)) }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.cols
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..(row + 1) * self.cols]
    }
}

/// To the nearest of 255 steps between the block's largest magnitudes.
fn round(values: &[f32]) -> Rounded {
    let mut rounded = Rounded {
        quants: Vec::with_capacity(values.len()),
        scales: Vec::with_capacity(values.len() / BLOCK),
        sums: Vec::with_capacity(values.len() / GROUP),
    };
    for block in values.chunks_exact(BLOCK) {
        let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        // A value that is not finite must reach the logits, where its row is ended.
        let sound = block.iter().all(|value| value.is_finite());
        let scale = if sound { largest / 127.0 } else { f32::NAN };
        let inverse = if largest > 0.0 && sound { 127.0 / largest } else { 0.0 };
        rounded.scales.push(scale);
        for group in block.chunks_exact(GROUP) {
            let quants = group.iter().map(|value| (value * inverse).round_ties_even() as i8);
            let start = rounded.quants.len();
            rounded.quants.extend(quants);
            let sum: i32 = rounded.quants[start..].iter().map(|quant| i32::from(*quant)).sum();
            rounded.sums.push(sum as f32 * scale);
        }
    }
    rounded
}

/// Multiplies and writes, or adds to, columns `first_col..first_col + weight.rows` of `out`, which
/// is `[rows, stride]`.
pub fn linear(
    pool: &Pool,
    inputs: &Inputs<'_>,
    weight: &Weight,
    out: &mut [f32],
    stride: usize,
    first_col: usize,
    add: bool,
) {
    assert_eq!(inputs.cols, weight.cols, "inputs of a linear layer");
    let columns = Columns::new(out, stride, first_col..first_col + weight.rows);
    let tasks = weight.rows.div_ceil(ROWS_PER_TASK);
    pool.run(tasks, |task| {
        let start = task * ROWS_PER_TASK;
        let rows = start..(start + ROWS_PER_TASK).min(weight.rows);
        SCRATCH.with_borrow_mut(|scratch| {
            multiply(inputs, weight, rows, scratch, |row, output, value| {
                // SAFETY: a task alone has these weight rows, hence these columns.
                unsafe { columns.put(row, output, value, add) }
            });
        });
    });
}

#[derive(Default)]
struct Scratch {
    row: Row,
    values: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn multiply(
    inputs: &Inputs<'_>,
    weight: &Weight,
    outputs: Range<usize>,
    scratch: &mut Scratch,
    put: impl Fn(usize, usize, f32),
) {
    for output in outputs {
        let blocks = weight.row(output);
        match &inputs.rounded {
            Some(rounded) if unpack::is_supported(weight.ty) => {
                unpack::unpack(weight.ty, blocks, weight.cols, &mut scratch.row);
                for row in 0..inputs.rows() {
                    put(row, output, dot_rounded(&scratch.row, rounded, row, weight.cols));
                }
            }
            _ => {
                scratch.values.resize(weight.cols, 0.0);
                decode(weight.ty, blocks, &mut scratch.values);
                for row in 0..inputs.rows() {
                    put(row, output, dot_f32(&scratch.values, inputs.row(row)));
                }
            }
        }
    }
}

fn dot_rounded(weights: &Row, inputs: &Rounded, row: usize, cols: usize) -> f32 {
    let quants = &inputs.quants[row * cols..(row + 1) * cols];
    let blocks = cols / BLOCK;
    let scales = &inputs.scales[row * blocks..(row + 1) * blocks];
    let product = dot_i8(&weights.quants, &weights.scales, quants, scales);
    if weights.minimums.is_empty() {
        return product;
    }
    let groups = cols / GROUP;
    product - dot_f32(&weights.minimums, &inputs.sums[row * groups..(row + 1) * groups])
}

fn decode(ty: WeightType, blocks: &[u8], out: &mut [f32]) {
    dequantize(ty, blocks, out);
}
