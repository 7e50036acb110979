//! What the kernel of `linear.cu` is told, and how it is launched.

use crate::cuda::{Address, Grid};
use crate::quant::WeightType;

use super::Matrix;
use super::layout::{TILE_ROWS, tiles, unit_bytes, unit_cols};

/// Matrices of one launch, at most.
pub(super) const MOST_PARTS: usize = 4;

/// Threads of a block.
pub(super) const THREADS: u32 = 512;
const WARPS: usize = 16;

/// Columns that a block's threads hold at once: `HELD_COLS` of `operand.cuh`.
pub(super) const HELD_COLS: usize = 8192;

/// A slot's barrier.
const BARRIER_BYTES: usize = 8;

/// Floats of a part of a tile that a block leaves for another.
pub(super) const SHARE: usize = 32 * TILE_ROWS;

/// Slots of a warp: more keep the activations waiting and do not make the memory faster.
const MOST_SLOTS: usize = 2;

/// Slots of a warp that are filled before the activations are read: more would delay those.
const EARLY_SLOTS: usize = 1;

/// Rows of which every block makes the operand itself; more are made once, by a launch before.
pub(super) const OWN_ROWS: usize = 2;

/// What activations are made of; `operand.cuh` has the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Source {
    /// They are made already.
    Operand = 0,
    /// Rows as they are.
    Rows = 1,
    /// Rows, normed.
    NormedRows = 2,
    /// Gates and what they gate, side by side.
    GatedRows = 3,
}

/// `Part` of `linear.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    units: Address,
    first_unit: i32,
    end_unit: i32,
    units_of_tile: i32,
    unit_bytes: i32,
    format: u32,
    rows: i32,
    col: i32,
    unused: i32,
}

/// `Prepare` of `linear.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepare {
    pub(super) x: Address,
    pub(super) rows_of_x: Address,
    pub(super) norm: Address,
    pub(super) operand: OperandRow,
    pub(super) wide: Address,
    pub(super) source: Source,
    pub(super) x_stride: i32,
    pub(super) cols: i32,
    pub(super) padded: i32,
    pub(super) eps: f32,
    pub(super) pieces: i32,
}

/// `OperandRow` of `operand.cuh`: where the operand's first row is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct OperandRow {
    pub(super) half: Address,
    pub(super) means: Address,
    pub(super) high: Address,
    pub(super) low: Address,
}

/// `Linear` of `linear.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    parts: [Part; MOST_PARTS],
    pub(super) x: Address,
    pub(super) norm: Address,
    pub(super) operand: OperandRow,
    pub(super) out: Address,
    pub(super) rows_of_x: Address,
    pub(super) shares: Address,
    pub(super) x_stride: i32,
    pub(super) source: Source,
    pub(super) eps: f32,
    cols: i32,
    padded: i32,
    halves: i32,
    floats: i32,
    pub(super) stride: i32,
    rows: i32,
    pub(super) add: i32,
    units: i32,
    slot_bytes: i32,
    slots: i32,
    early_slots: i32,
}

/// A kernel and its grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) kernel: &'static str,
    pub(super) grid: Grid,
    slots: usize,
}

/// What of a card matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) multiprocessors: u32,
    /// Shared memory that a block may have at most.
    pub(super) shared_bytes: u32,
}

/// A matrix and the first column of its outputs.
#[derive(Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) col: usize,
}

/// What the parts need of their activations, and of a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    pub(super) halves: bool,
    pub(super) floats: bool,
    pub(super) slot_bytes: usize,
    pub(super) units: usize,
    pub(super) tiles: usize,
    pub(super) padded: usize,
}

impl Needs {
    pub(super) fn of(parts: &[Placed<'_>]) -> Self {
        let floats = |part: &Placed<'_>| takes_floats(part.matrix.format);
        let slots = parts.iter().map(|part| unit_bytes(part.matrix.format));
        let units = |part: &Placed<'_>| tiles(part.matrix.rows) * units_of_tile(part.matrix);
        Self {
            halves: !parts.iter().all(floats),
            floats: parts.iter().any(floats),
            slot_bytes: slots.max().unwrap_or(0),
            units: parts.iter().map(units).sum(),
            tiles: parts.iter().map(|part| tiles(part.matrix.rows)).sum(),
            padded: parts[0].matrix.padded(),
        }
    }

    /// Those of one matrix.
    #[cfg(test)]
    pub(super) fn of_one(format: WeightType, rows: usize, padded: usize) -> Self {
        let floats = takes_floats(format);
        let (tiles, slot_bytes) = (tiles(rows), unit_bytes(format));
        let units = tiles * padded / unit_cols(format);
        Self { halves: !floats, floats, slot_bytes, units, tiles, padded }
    }

    /// Bytes of `rows` rows of activations in shared memory, where they lie a little apart.
    fn staged_bytes(&self, rows: usize) -> usize {
        let halves = if self.halves { self.padded + 32 + self.padded / 16 + 16 } else { 0 };
        let floats = if self.floats { 2 * (self.padded + 32) } else { 0 };
        2 * rows * (halves + floats)
    }

    /// Slots of each warp beside `others` bytes.
    fn slots(&self, room: Room, others: usize) -> usize {
        let left = (room.shared_bytes as usize).saturating_sub(others);
        (left / (WARPS * (self.slot_bytes + BARRIER_BYTES))).min(MOST_SLOTS)
    }

    /// Whether activations fit into shared memory beside rings.
    pub(super) fn can_stage(&self, room: Room, rows: usize) -> bool {
        rows <= 8 && self.slots(room, self.staged_bytes(rows) + sums_bytes(rows)) >= 2
    }

    /// How `rows` rows are multiplied: as many at once as leave two slots to each warp.
    pub(super) fn plan(&self, room: Room, rows: usize) -> Plan {
        let staged = self.can_stage(room, rows);
        let fits = |take: usize| self.slots(room, sums_bytes(rows.min(take))) >= 2;
        let (kernel, take) = match rows {
            0..=8 if staged => ("linear_8_staged", 8),
            17.. if fits(32) => ("linear_32", 32),
            9.. if fits(16) => ("linear_16", 16),
            _ => ("linear_8", 8),
        };
        let staged = if staged { self.staged_bytes(rows) } else { 0 };
        let others = staged + sums_bytes(rows.min(take));
        let slots = self.slots(room, others);
        let shared = WARPS * slots * (self.slot_bytes + BARRIER_BYTES) + others;
        // Each block a tile, where there are not more: blocks that share one wait for each other,
        // which takes longer than the products of few tiles.
        let blocks = (room.multiprocessors as usize).min(self.tiles) as u32;
        let grid = Grid::plane(blocks, rows.div_ceil(take) as u32, THREADS);
        Plan { kernel, grid: grid.with_shared(shared as u32), slots }
    }
}

/// Shared memory for two parts of tiles of each warp, and 32 floats.
fn sums_bytes(rows: usize) -> usize {
    2 * WARPS * TILE_ROWS * rows * 4 + 128
}

/// Whether activations are wanted as sums of two bfloat16 instead of halves.
pub(super) fn takes_floats(format: WeightType) -> bool {
    matches!(format, WeightType::BF16 | WeightType::F32)
}

fn units_of_tile(matrix: &Matrix) -> usize {
    matrix.padded() / unit_cols(matrix.format)
}

impl OperandRow {
    /// Nothing is wanted.
    pub(super) const NONE: Self =
        Self { half: Address::NONE, means: Address::NONE, high: Address::NONE, low: Address::NONE };
}

impl Job {
    /// Without activations and outputs, which the caller sets.
    pub(super) fn new(parts: &[Placed<'_>], needs: &Needs, plan: &Plan, rows: usize) -> Self {
        let nowhere = Address::NONE;
        let (parts_table, units) = table(parts);
        Self {
            parts: parts_table,
            x: nowhere,
            norm: nowhere,
            operand: OperandRow::NONE,
            out: nowhere,
            rows_of_x: nowhere,
            shares: nowhere,
            x_stride: 0,
            source: Source::Operand,
            eps: 0.0,
            cols: parts[0].matrix.cols as i32,
            padded: needs.padded as i32,
            halves: i32::from(needs.halves),
            floats: i32::from(needs.floats),
            stride: 0,
            rows: rows as i32,
            add: 0,
            units,
            slot_bytes: needs.slot_bytes as i32,
            slots: plan.slots as i32,
            early_slots: plan.slots.min(EARLY_SLOTS) as i32,
        }
    }
}

/// The parts as the kernel knows them, and all their units.
fn table(parts: &[Placed<'_>]) -> ([Part; MOST_PARTS], i32) {
    let (mut table, mut unit) = ([Part::NONE; MOST_PARTS], 0);
    for (part, placed) in table.iter_mut().zip(parts) {
        let matrix = placed.matrix;
        let units = tiles(matrix.rows) * units_of_tile(matrix);
        *part = Part {
            units: matrix.units.at(0),
            first_unit: unit,
            end_unit: unit + units as i32,
            units_of_tile: units_of_tile(matrix) as i32,
            unit_bytes: unit_bytes(matrix.format) as i32,
            format: matrix.format.ggml_id(),
            rows: matrix.rows as i32,
            col: placed.col as i32,
            unused: 0,
        };
        unit += units as i32;
    }
    (table, unit)
}

impl Part {
    const NONE: Self = Self {
        units: Address::NONE,
        first_unit: 0,
        end_unit: 0,
        units_of_tile: 0,
        unit_bytes: 0,
        format: 0,
        rows: 0,
        col: 0,
        unused: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Room = Room { multiprocessors: 132, shared_bytes: 232_448 };
    const SMALL: Room = Room { multiprocessors: 28, shared_bytes: 101_376 };

    /// Every plan fits its card, keeps the memory busy and covers all rows.
    #[test]
    fn rings_fit_beside_the_activations() {
        use WeightType::{BF16, F32, Q4_K, Q6_K};
        for format in [Q4_K, Q6_K, BF16, F32] {
            for cols in [256, 4096, 17408] {
                for room in [H200, SMALL] {
                    for rows in [1, 2, 8, 9, 16, 17, 64] {
                        let plan = Needs::of_one(format, 5120, cols).plan(room, rows);
                        let what = format!("{format} {cols} {rows}: {plan:?}");
                        assert!(plan.grid.shared <= room.shared_bytes, "{what}");
                        assert!(plan.slots >= 1, "{what}");
                        assert!(plan.slots >= 2 || room.multiprocessors == 28, "{what}");
                        let take = match plan.kernel {
                            "linear_32" => 32,
                            "linear_16" => 16,
                            _ => 8,
                        };
                        assert_eq!(plan.grid.blocks[1], rows.div_ceil(take) as u32);
                    }
                }
            }
        }
    }

    /// One row of the sizes that matter is multiplied from shared memory by the whole card.
    #[test]
    fn one_row_takes_the_whole_card() {
        for (format, cols) in [(WeightType::Q4_K, 5120), (WeightType::Q6_K, 17408)] {
            let plan = Needs::of_one(format, 5120, cols).plan(H200, 1);
            assert_eq!(plan.kernel, "linear_8_staged");
            assert_eq!(plan.grid.blocks, [132, 1, 1]);
            assert_eq!(plan.slots, MOST_SLOTS);
        }
        let few = Needs::of_one(WeightType::F32, 2 * 48, 5120).plan(H200, 32);
        assert_eq!(few.grid.blocks[0], 6, "no tile is shared between blocks");
    }

    /// The kernel reads the same layout: places first, then numbers, without gaps.
    #[test]
    fn the_job_is_laid_out_as_the_kernel_reads_it() {
        assert_eq!((size_of::<Part>(), size_of::<Job>()), (40, 4 * 40 + 9 * 8 + 14 * 4));
        assert_eq!(std::mem::offset_of!(Job, x_stride), 4 * 40 + 9 * 8);
    }
}
