//! Linear layers on the CPU.

use std::cell::RefCell;

pub use super::packed::Packed;
use super::packed::{TILE, packed_bytes};
use super::round::{PANEL, Rounded};
use super::{dense, tile};
use crate::cpu::memory;
use crate::cpu::pool::{Columns, Pool};
use crate::cpu::widest::{Level, level};
use crate::quant::{WeightType, dequantize};
use crate::weight::Weight;

/// Bytes of weights that are worth a hand-over between threads.
const TASK_BYTES: usize = 64 << 10;

/// Weight rows of the smallest task.
const TASK_ROWS: usize = TILE;

/// A weight matrix as the kernels like it.
pub enum Matrix {
    /// As the file holds it, in place.
    Dense(Weight),
    /// Quantised: a copy in another order, and nothing of the file.
    Packed(Packed),
}

impl Matrix {
    /// Packs what can be packed.
    pub fn new(weight: &Weight, pool: &Pool) -> Self {
        let packed = Packed::new(weight, pool);
        packed.map_or_else(
            || {
                memory::read_in(&weight.bytes);
                Self::Dense(weight.clone())
            },
            Self::Packed,
        )
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.rows,
            Self::Packed(packed) => packed.rows,
        }
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.cols,
            Self::Packed(packed) => packed.cols,
        }
    }

    /// Bytes that a matrix of this format and size will take.
    pub fn bytes_of(ty: WeightType, rows: usize, cols: usize) -> usize {
        let dense = || rows * (cols / ty.block_elements() * ty.block_bytes());
        packed_bytes(ty, rows, cols).unwrap_or_else(dense)
    }

    /// Bytes that it takes, those of a mapped file included.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.bytes.len(),
            Self::Packed(packed) => packed.bytes(),
        }
    }

    /// Decodes one row into `out`, which is `[cols]`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows(), "row {row} of {}", self.rows());
        match self {
            Self::Dense(weight) => dequantize(weight.ty, weight.row(row), out),
            Self::Packed(packed) => packed.decode_row(row, out),
        }
    }
}

/// Input rows, ready for any matrix.
pub struct Inputs<'a> {
    cols: usize,
    values: &'a [f32],
    rounded: Option<Rounded>,
}

impl<'a> Inputs<'a> {
    /// `values` is `[rows, cols]`; they are rounded once for all packed matrices of `weights`.
    pub fn new(pool: &Pool, values: &'a [f32], cols: usize, weights: &[&Matrix]) -> Self {
        let rounds = weights.iter().any(|matrix| matches!(matrix, Matrix::Packed(_)));
        Self { cols, values, rounded: rounds.then(|| Rounded::new(pool, values, cols)) }
    }
}

/// Multiplies and writes, or adds to, columns `first_col..first_col + weight.rows()` of `out`,
/// which is `[rows, stride]`.
///
/// # Panics
/// When `inputs` were not made for this matrix.
pub fn linear(
    pool: &Pool,
    inputs: &Inputs<'_>,
    weight: &Matrix,
    out: &mut [f32],
    stride: usize,
    first_col: usize,
    add: bool,
) {
    linear_at(level(), pool, inputs, weight, out, stride, first_col, add);
}

/// [`linear`] in a version that tests choose.
pub(super) fn linear_at(
    level: Level,
    pool: &Pool,
    inputs: &Inputs<'_>,
    weight: &Matrix,
    out: &mut [f32],
    stride: usize,
    first_col: usize,
    add: bool,
) {
    assert_eq!(inputs.cols, weight.cols(), "inputs of a linear layer");
    let rows = weight.rows();
    let columns = Columns::new(out, stride, first_col..first_col + rows);
    let units = rows.div_ceil(TASK_ROWS);
    let per_task = units_of_task(weight, inputs.values.len() / inputs.cols, units, pool.threads());
    pool.run(units.div_ceil(per_task), |task| {
        for unit in task * per_task..((task + 1) * per_task).min(units) {
            // SAFETY: a task alone has these weight rows, hence these columns.
            let put = |row, column, values: &[f32]| unsafe {
                columns.put(row, column, values, add);
            };
            match weight {
                Matrix::Dense(weight) => multiply_dense(inputs, weight, unit * TASK_ROWS, put),
                Matrix::Packed(packed) => multiply_packed(level, inputs, packed, unit, put),
            }
        }
    });
}

/// Enough work for a hand-over, and tasks enough that the threads end together.
fn units_of_task(weight: &Matrix, rows: usize, units: usize, threads: usize) -> usize {
    let unit_bytes = weight.bytes() / units * rows;
    let worth = TASK_BYTES.div_ceil(unit_bytes.max(1));
    worth.min(units / (4 * threads)).max(1)
}

fn multiply_packed(
    level: Level,
    inputs: &Inputs<'_>,
    packed: &Packed,
    unit: usize,
    put: impl Fn(usize, usize, &[f32]),
) {
    let rounded = inputs.rounded.as_ref().expect("inputs were made for this matrix");
    let first = unit * TILE;
    let rows = TILE.min(packed.rows - first);
    let mut sums = [[0.0; TILE]; PANEL];
    for panel in rounded.panels() {
        tile::multiply(level, packed, unit, panel, &mut sums);
        for (at, sums) in sums[..panel.rows].iter().enumerate() {
            put(panel.first + at, first, &sums[..rows]);
        }
    }
}

thread_local! {
    /// Decoded rows.
    static DECODED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn multiply_dense(
    inputs: &Inputs<'_>,
    weight: &Weight,
    first: usize,
    put: impl Fn(usize, usize, &[f32]),
) {
    let rows = first..(first + TASK_ROWS).min(weight.rows);
    DECODED.with_borrow_mut(|decoded| {
        for first in rows.clone().step_by(dense::ROWS) {
            dense::decode(weight, first, decoded);
            let count = dense::ROWS.min(rows.end - first);
            for (row, x) in inputs.values.chunks_exact(inputs.cols).enumerate() {
                put(row, first, &dense::dots(decoded, x)[..count]);
            }
        }
    });
}
