//! Linear layers on a card.
//!
//! Weights are put in the order of the tensor cores once, at load (`cuda/unit.cuh`). Quantised ones
//! are multiplied as whole numbers in halves, with activations rounded to halves; float ones with
//! activations as sums of two bfloat16. Among steps that are multiplied the same way (one or two
//! rows; more, up to 8 on Hopper and to 64 elsewhere; 9 to 64 on Hopper; more) a row's result is
//! the same whatever else is in the step; from one way to another it is rounded anew.

mod few;
mod job;
mod layout;
mod library;
#[cfg(test)]
mod tests;
mod wide;

use std::sync::Arc;

use few::{Few, Wanted};
use job::{Job, MOST_PARTS, Needs, OWN_ROWS, OperandRow, Placed, Prepare, Room, Source};
pub(crate) use layout::matrix_bytes;
use library::{Float, Library, Shape};
use wide::Wide;

use crate::cuda::{Address, Buffer, Context, Cuda, Grid, Tensor};
use crate::quant::WeightType;
use crate::weight::Weight;

/// Rows of one launch; more are several launches over the same weights.
const MOST_ROWS: usize = 64;

/// Weights below which the library, for which they are decoded first, is no faster than launches of
/// the kernels. These round activations of float weights less, so small models stay exact.
const LIBRARY_WEIGHTS: usize = 1 << 18;

/// Blocks of the file on their way to a card.
const STAGING_BYTES: usize = 64 << 20;

/// A weight matrix on a card.
pub struct Matrix {
    /// What it is kept as.
    pub(crate) format: WeightType,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Units in the order of `cuda/unit.cuh`.
    pub(crate) units: Buffer<u8>,
}

impl Matrix {
    /// Bytes that a matrix takes.
    pub(crate) fn bytes_of(ty: WeightType, rows: usize, cols: usize) -> u64 {
        matrix_bytes(ty, rows, cols) as u64
    }

    /// Takes a matrix over.
    pub(crate) fn new(context: &Arc<Context>, weight: &Weight) -> Self {
        let Weight { ty, rows, cols, .. } = *weight;
        let units = Buffer::new(context, "weights", matrix_bytes(ty, rows, cols));
        let matrix = Self { format: layout::format_of(ty), rows, cols, units };
        let row_bytes = weight.row_bytes();
        let tile = layout::TILE_ROWS * row_bytes;
        let step = (STAGING_BYTES / tile).max(1) * tile;
        let staging = Buffer::new(context, "weights on their way", step.min(weight.bytes.len()));
        for (at, bytes) in weight.bytes.chunks(step).enumerate() {
            staging.put(0, bytes);
            let first = at * step / row_bytes;
            matrix.repack(context, weight, staging.at(0), first, bytes.len() / row_bytes);
        }
        matrix
    }

    /// Puts `rows` rows of blocks from `first` on in order; `first` begins a tile.
    fn repack(
        &self,
        context: &Arc<Context>,
        weight: &Weight,
        blocks: Address,
        first: usize,
        rows: usize,
    ) {
        let units = self.padded() / layout::unit_cols(self.format);
        let tile = first / layout::TILE_ROWS * layout::tile_bytes(self.format, self.cols);
        // Grids are low in y.
        let tiles = layout::tiles(rows);
        for some in (0..tiles).step_by(1 << 15) {
            let skipped = some * layout::TILE_ROWS;
            let count = (tiles - some).min(1 << 15);
            let skipped_units = some * layout::tile_bytes(self.format, self.cols);
            context
                .launch("linear_repack", Grid::plane(units as u32, count as u32, 128))
                .arg(self.format.ggml_id())
                .arg(weight.ty.ggml_id())
                .arg(weight.ty.block_elements())
                .arg(weight.ty.block_bytes())
                .arg(blocks.plus((skipped * weight.row_bytes()) as u64))
                .arg(weight.row_bytes() as i64)
                .arg((rows - skipped).min(count * layout::TILE_ROWS))
                .arg(self.cols)
                .arg(self.units.at(tile + skipped_units))
                .run();
        }
    }

    /// Columns with the zeros that fill the last units up.
    pub(crate) fn padded(&self) -> usize {
        layout::padded(self.cols)
    }

    /// Whether it has the shape and format of another.
    fn is_like(&self, other: &Self) -> bool {
        (self.rows, self.cols, self.format) == (other.rows, other.cols, other.format)
    }
}

/// Memory that linear layers share: their operands, and sums that cross blocks.
pub(crate) struct Scratch {
    half: Buffer<u16>,
    means: Buffer<u16>,
    high: Buffer<u16>,
    low: Buffer<u16>,
    /// Activations for warpgroups, on cards that have them.
    wide: Buffer<u16>,
    shares: Buffer<f32>,
    library: Option<Library>,
}

/// What scratch must hold: the widest activations of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Widest {
    halves: usize,
    floats: usize,
}

impl Widest {
    /// Makes room for the inputs of a matrix.
    pub(crate) fn include(&mut self, matrix: &Matrix) {
        let kind =
            if job::takes_floats(matrix.format) { &mut self.floats } else { &mut self.halves };
        *kind = (*kind).max(matrix.padded());
    }
}

impl Scratch {
    /// For steps of at most `rows` rows.
    pub(crate) fn new(context: &Arc<Context>, rows: usize, widest: Widest) -> Self {
        let what = "operands of linear layers";
        let card = context.card();
        let (halves, floats) = (rows * widest.halves, rows * widest.floats);
        let is_wide = card.generation == wide::GENERATION && rows >= wide::FEWEST_ROWS;
        let (wide, wide_shares) = match is_wide {
            true => (wide::operand_halves(widest.halves), wide::share_floats(card.multiprocessors)),
            false => (0, 0),
        };
        let shares = card.multiprocessors as usize * MOST_ROWS / 8 * job::SHARE;
        let shares = Buffer::new(context, what, shares.max(wide_shares));
        // No sum has these bits: nothing is shared yet.
        shares.fill_bytes(0xff);
        Self {
            half: Buffer::new(context, what, halves),
            means: Buffer::new(context, what, halves / 16),
            high: Buffer::new(context, what, floats),
            low: Buffer::new(context, what, floats),
            wide: Buffer::new(context, what, wide),
            shares,
            library: if rows > MOST_ROWS { Library::open(context) } else { None },
        }
    }

    /// Whether the library for many rows is installed.
    pub(crate) fn has_library(&self) -> bool {
        self.library.is_some()
    }

    fn operand(&self, needs: &Needs, padded: usize, row: usize) -> OperandRow {
        let at = |wanted, buffer: &Buffer<u16>, cols| {
            if wanted { buffer.at(row * cols) } else { Address::NONE }
        };
        OperandRow {
            half: at(needs.halves, &self.half, padded),
            means: at(needs.halves, &self.means, padded / 16),
            high: at(needs.floats, &self.high, padded),
            low: at(needs.floats, &self.low, padded),
        }
    }
}

/// What is multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// Rows of f32.
    pub(crate) x: &'a Buffer<f32>,
    /// Columns of a row; gates come before them, as many again, if there are any.
    pub(crate) cols: usize,
    /// Whether there are: `silu(gate) * x` is multiplied.
    pub(crate) gated: bool,
    /// Which of the rows, as a list on the card; without it the first ones.
    pub(crate) rows_of: Option<Address>,
    /// The norm that comes first: its weight and epsilon.
    pub(crate) norm: Option<(&'a Buffer<f32>, f32)>,
}

/// Where in a tensor products go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The first of their columns.
    pub(crate) first_col: usize,
    /// Whether they are added to what is there.
    pub(crate) add: bool,
}

impl Place {
    /// The first columns, overwritten.
    pub(crate) const START: Self = Self { first_col: 0, add: false };
}

impl<'a> Input<'a> {
    /// A tensor's first rows.
    pub(crate) fn of(x: &'a Tensor) -> Self {
        Self { x: &x.values, cols: x.cols, gated: false, rows_of: None, norm: None }
    }

    /// A tensor's first rows of `[gate | up]`.
    pub(crate) fn gated(x: &'a Tensor) -> Self {
        Self { cols: x.cols / 2, gated: true, ..Self::of(x) }
    }

    fn source(&self) -> Source {
        match (self.gated, self.norm) {
            (true, _) => Source::GatedRows,
            (false, Some(_)) => Source::NormedRows,
            (false, None) => Source::Rows,
        }
    }

    fn stride(&self) -> usize {
        if self.gated { 2 * self.cols } else { self.cols }
    }

    fn norm(&self) -> Address {
        self.norm.map_or(Address::NONE, |(weight, _)| weight.at(0))
    }

    fn eps(&self) -> f32 {
        self.norm.map_or(0.0, |(_, eps)| eps)
    }
}

/// `out = input · partsᵀ` for `rows` rows, or added to it; the parts lie side by side from the
/// place on.
///
/// # Panics
/// When widths differ.
pub(crate) fn linear(
    cuda: &Cuda,
    input: &Input<'_>,
    rows: usize,
    parts: &[Matrix],
    out: &mut Tensor,
    place: Place,
) {
    assert!(parts.iter().all(|part| part.cols == input.cols), "columns of a linear layer");
    let outputs: usize = parts.iter().map(|part| part.rows).sum();
    assert!(place.first_col + outputs <= out.cols, "outputs of a linear layer");
    if rows == 0 {
        return;
    }
    let many = rows > MOST_ROWS && outputs * input.cols >= LIBRARY_WEIGHTS;
    if let (Some(library), true) = (&cuda.linear.library, many) {
        return multiply_many(cuda, library, input, rows, parts, out, place);
    }
    let mut col = place.first_col;
    let place_next = |matrix| {
        let placed = Placed { matrix, col };
        col += matrix.rows;
        placed
    };
    let placed: Vec<_> = parts.iter().map(place_next).collect();
    if rows <= few::MOST_ROWS && !input.gated {
        for parts in placed.chunks(MOST_PARTS) {
            let (source, add) = (input.source(), place.add);
            let wanted = Wanted { parts, pairs: false, rows, source, add };
            if !multiply_one_or_two(cuda, input, &wanted, out) {
                multiply_few(cuda, input, rows, parts, out, place, false);
            }
        }
        return;
    }
    let for_groups =
        !cuda.linear.wide.is_empty() && (wide::FEWEST_ROWS..=MOST_ROWS).contains(&rows);
    let (wide, others): (Vec<_>, Vec<_>) =
        placed.into_iter().partition(|part| for_groups && wide::takes(part.matrix.format));
    let mut is_prepared = false;
    if !wide.is_empty() {
        let needs = (!others.is_empty()).then(|| Needs::of(&others));
        prepare(cuda, input, needs.as_ref(), rows, Some(wide::pieces(rows)));
        is_prepared = true;
    }
    for parts in wide.chunks(MOST_PARTS) {
        let (mut job, kernel, grid) = Wide::new(parts, rows, room(cuda));
        job.x = cuda.linear.wide.at(0);
        job.out = out.values.at(0);
        job.stride = out.cols as i32;
        job.add = i32::from(place.add);
        job.shares = cuda.linear.shares.at(0);
        cuda.launch(kernel, grid).arg_by_value(&job).overlapping().run();
    }
    for parts in others.chunks(MOST_PARTS) {
        multiply_few(cuda, input, rows, parts, out, place, is_prepared);
    }
}

/// `out = silu(input · gateᵀ) * (input · upᵀ)` for one or two rows, in one launch. Says whether it
/// did: the matrices must be alike.
pub(crate) fn gate_up(
    cuda: &Cuda,
    input: &Input<'_>,
    rows: usize,
    matrices: &[Matrix; 2],
    out: &mut Tensor,
) -> bool {
    assert_eq!(matrices[0].rows, out.cols, "columns of what is gated");
    let parts = matrices.each_ref().map(|matrix| Placed { matrix, col: 0 });
    let source = input.source();
    let wanted = Wanted { parts: &parts, pairs: true, rows, source, add: false };
    multiply_one_or_two(cuda, input, &wanted, out)
}

/// One or two rows, in one launch. Says whether it did: not every shape fits.
fn multiply_one_or_two(
    cuda: &Cuda,
    input: &Input<'_>,
    wanted: &Wanted<'_>,
    out: &mut Tensor,
) -> bool {
    let generation = cuda.context.card().generation;
    let Some(plan) = few::Plan::of(wanted, generation, room(cuda)) else { return false };
    let mut job = Few::new(wanted, &plan);
    job.x = input.x.at(0);
    job.x_stride = input.stride() as i32;
    job.rows_of_x = input.rows_of.unwrap_or(Address::NONE);
    (job.norm, job.eps) = (input.norm(), input.eps());
    job.out = out.values.at(0);
    job.stride = out.cols as i32;
    cuda.launch(plan.kernel, plan.grid).arg_by_value(&job).overlapping().run();
    true
}

/// The same for a few parts; their operand may have been prepared.
fn multiply_few(
    cuda: &Cuda,
    input: &Input<'_>,
    rows: usize,
    parts: &[Placed<'_>],
    out: &Tensor,
    place: Place,
    is_prepared: bool,
) {
    let (needs, room) = (Needs::of(parts), room(cuda));
    let own = !is_prepared && rows <= OWN_ROWS && needs.can_stage(room, rows);
    if !own && !is_prepared {
        prepare(cuda, input, Some(&needs), rows, None);
    }
    for first in (0..rows).step_by(MOST_ROWS) {
        let count = (rows - first).min(MOST_ROWS);
        let plan = needs.plan(room, count);
        let mut job = Job::new(parts, &needs, &plan, count);
        if own {
            job.x = input.x.at(0);
            job.x_stride = input.stride() as i32;
            job.rows_of_x = input.rows_of.unwrap_or(Address::NONE);
            (job.source, job.norm, job.eps) = (input.source(), input.norm(), input.eps());
        } else {
            job.operand = cuda.linear.operand(&needs, layout::padded(input.cols), first);
        }
        job.out = out.values.at(first * out.cols);
        job.stride = out.cols as i32;
        job.add = i32::from(place.add);
        job.shares = cuda.linear.shares.at(0);
        cuda.launch(plan.kernel, plan.grid).arg_by_value(&job).overlapping().run();
    }
}

/// The same for more rows than the kernels take at once.
fn multiply_many(
    cuda: &Cuda,
    library: &Library,
    input: &Input<'_>,
    rows: usize,
    parts: &[Matrix],
    out: &Tensor,
    place: Place,
) {
    let placed: Vec<_> = parts.iter().map(|matrix| Placed { matrix, col: 0 }).collect();
    let needs = Needs::of(&placed);
    prepare(cuda, input, Some(&needs), rows, None);
    let operand = cuda.linear.operand(&needs, layout::padded(input.cols), 0);
    let mut first_col = place.first_col;
    for part in parts {
        let step = Library::tiles(part.padded());
        let tiles = layout::tiles(part.rows);
        for tile in (0..tiles).step_by(step) {
            let count = step.min(tiles - tile);
            let first = tile * layout::TILE_ROWS;
            let mut shape = Shape {
                rows,
                outputs: (count * layout::TILE_ROWS).min(part.rows - first),
                cols: part.padded(),
                stride: out.cols,
                float: Float::Bf16,
                add: place.add,
            };
            let to = out.values.at(first_col + first);
            let decode = |kind| decode(cuda, part, tile, count, kind, library.decoded());
            match part.format {
                // Both operands are sums of two; the product of the two rests is nothing.
                WeightType::F32 => {
                    decode(Kind::Main);
                    library.multiply(shape, operand.high, to);
                    shape.add = true;
                    library.multiply(shape, operand.low, to);
                    decode(Kind::Rest);
                    library.multiply(shape, operand.high, to);
                }
                WeightType::BF16 => {
                    decode(Kind::Main);
                    library.multiply(shape, operand.high, to);
                }
                _ => {
                    decode(Kind::Halves);
                    shape.float = Float::Half;
                    library.multiply(shape, operand.half, to);
                }
            }
        }
        first_col += part.rows;
    }
}

/// What weights are decoded to; `decode.cu` has the same numbers.
#[derive(Clone, Copy)]
enum Kind {
    Halves = 0,
    Main = 1,
    Rest = 2,
}

/// Decodes `count` tiles from `tile` on.
fn decode(cuda: &Cuda, matrix: &Matrix, tile: usize, count: usize, kind: Kind, to: Address) {
    let units = matrix.padded() / layout::unit_cols(matrix.format);
    cuda.launch("linear_decode", Grid::plane(units as u32, count as u32, 128))
        .arg(matrix.format.ggml_id())
        .arg(kind as i32)
        .arg(matrix.units.at(tile * layout::tile_bytes(matrix.format, matrix.cols)))
        .arg(matrix.padded())
        .arg(to)
        .overlapping()
        .run();
}

/// Makes the operand of all rows: what the needs say, and chunks of so many `pieces`.
fn prepare(
    cuda: &Cuda,
    input: &Input<'_>,
    needs: Option<&Needs>,
    rows: usize,
    pieces: Option<usize>,
) {
    let padded = layout::padded(input.cols);
    let job = Prepare {
        x: input.x.at(0),
        rows_of_x: input.rows_of.unwrap_or(Address::NONE),
        norm: input.norm(),
        operand: needs.map_or(OperandRow::NONE, |needs| cuda.linear.operand(needs, padded, 0)),
        wide: pieces.map_or(Address::NONE, |_| cuda.linear.wide.at(0)),
        source: input.source(),
        x_stride: input.stride() as i32,
        cols: input.cols as i32,
        padded: padded as i32,
        eps: input.eps(),
        pieces: pieces.unwrap_or(0) as i32,
    };
    // The norm wants a whole row; otherwise nothing in a row waits for the rest of it.
    let slices = if input.norm.is_some() { 1 } else { padded.div_ceil(job::HELD_COLS) };
    let grid = Grid::plane(rows as u32, slices as u32, job::THREADS);
    cuda.launch("linear_prepare", grid).arg_by_value(&job).overlapping().run();
}

fn room(cuda: &Cuda) -> Room {
    let card = cuda.context.card();
    Room { multiprocessors: card.multiprocessors, shared_bytes: card.shared_bytes }
}

/// `residual += x` over the step's rows.
pub(crate) fn add(cuda: &Cuda, x: &Tensor, residual: &mut Tensor) {
    assert_eq!(x.cols, residual.cols, "columns of a sum");
    let items = cuda.rows() * x.cols;
    cuda.launch("add_rows", Grid::over(items, 256))
        .arg(&x.values)
        .arg(&residual.values)
        .arg(items as i64)
        .overlapping()
        .run();
}
