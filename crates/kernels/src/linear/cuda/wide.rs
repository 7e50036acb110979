//! 9 to 64 rows on Hopper: what the kernels of `wide.cu` are told.

use super::job::{MOST_PARTS, Placed, Room, THREADS};
use super::layout::{PADDED_COLS, TILE_ROWS, tiles, unit_bytes, unit_cols};
use crate::cuda::{Address, Grid};
use crate::quant::WeightType;

/// The generation whose warpgroups the kernels are written for.
pub(super) const GENERATION: u32 = 90;

/// Fewer rows are multiplied as fast by launches that need no others before them.
pub(super) const FEWEST_ROWS: usize = 9;

/// Warps of a block, each with a tile.
const WARPS: usize = 16;

/// Steps of a chunk of activations: 16 columns each, and the means of 32.
const STEPS: usize = PADDED_COLS / 16 + 1;

/// Rows of weights that a block multiplies at once.
const GROUP_ROWS: usize = WARPS * TILE_ROWS;

/// Units of a warp on their way: more make the memory no faster.
const MOST_SLOTS: usize = 6;

/// `WidePart` of `wide.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Part {
    units: Address,
    first_chunk: i32,
    end_chunk: i32,
    tiles: i32,
    unit_bytes: i32,
    format: u32,
    rows: i32,
    col: i32,
    units_of_chunk: i32,
}

/// `WideLinear` of `wide.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide {
    parts: [Part; MOST_PARTS],
    pub(super) x: Address,
    pub(super) out: Address,
    pub(super) shares: Address,
    chunks: i32,
    chunks_of_group: i32,
    pub(super) stride: i32,
    rows: i32,
    pub(super) add: i32,
    slot_bytes: i32,
    slots: i32,
    stages: i32,
    of_block: i32,
    of_first: i32,
}

/// Whether the kernels know a format.
pub(super) fn takes(format: WeightType) -> bool {
    use WeightType::{F16, Q4_K, Q5_K, Q6_K, Q8_0};
    matches!(format, Q4_K | Q5_K | Q6_K | Q8_0 | F16)
}

/// Activations are laid out for 16, 32 or 64 rows: so many times eight.
pub(super) fn pieces(rows: usize) -> usize {
    rows.div_ceil(8).next_power_of_two()
}

/// Halves of the activations of up to 64 rows of so many padded columns.
pub(super) fn operand_halves(padded: usize) -> usize {
    padded / PADDED_COLS * STEPS * 16 * 64
}

/// Floats that the blocks of a launch leave for each other, at most: each of two groups.
pub(super) fn share_floats(multiprocessors: u32) -> usize {
    2 * multiprocessors as usize * GROUP_ROWS * 64
}

impl Wide {
    /// Without places, which the caller sets; and the kernel and its grid.
    pub(super) fn new(parts: &[Placed<'_>], rows: usize, room: Room) -> (Self, &'static str, Grid) {
        let chunks_of_group = parts[0].matrix.padded() / PADDED_COLS;
        let (table, chunks) = table(parts, chunks_of_group);
        let formats = parts.iter().map(|part| part.matrix.format);
        let slot_bytes = formats.map(unit_bytes).max().unwrap_or(0);
        let pieces = pieces(rows);
        let (kernel, stages) = match pieces {
            2 => ("linear_wide_16", 4),
            4 => ("linear_wide_32", 4),
            _ => ("linear_wide_64", 3),
        };
        // A stage is a chunk and two barriers, a slot a unit and one.
        let staged = stages * (pieces * STEPS * 256 + 16);
        let slot = WARPS * (slot_bytes + 8);
        let slots = ((room.shared_bytes as usize).saturating_sub(staged) / slot).min(MOST_SLOTS);
        let grid = Grid::line(room.multiprocessors, THREADS);
        let grid = grid.with_shared((staged + slots * slot) as u32);
        let nowhere = Address::NONE;
        let wide = Self {
            parts: table,
            x: nowhere,
            out: nowhere,
            shares: nowhere,
            chunks,
            chunks_of_group: chunks_of_group as i32,
            stride: 0,
            rows: rows as i32,
            add: 0,
            slot_bytes: slot_bytes as i32,
            slots: slots as i32,
            stages: stages as i32,
            of_block: chunks / room.multiprocessors as i32,
            of_first: chunks % room.multiprocessors as i32,
        };
        (wide, kernel, grid)
    }
}

/// The parts as the kernels know them, and all their chunks.
fn table(parts: &[Placed<'_>], chunks_of_group: usize) -> ([Part; MOST_PARTS], i32) {
    let (mut table, mut chunk) = ([Part::NONE; MOST_PARTS], 0);
    for (part, placed) in table.iter_mut().zip(parts) {
        let matrix = placed.matrix;
        let end = chunk + matrix.rows.div_ceil(GROUP_ROWS) * chunks_of_group;
        *part = Part {
            units: matrix.units.at(0),
            first_chunk: chunk as i32,
            end_chunk: end as i32,
            tiles: tiles(matrix.rows) as i32,
            unit_bytes: unit_bytes(matrix.format) as i32,
            format: matrix.format.ggml_id(),
            rows: matrix.rows as i32,
            col: placed.col as i32,
            units_of_chunk: (PADDED_COLS / unit_cols(matrix.format)) as i32,
        };
        chunk = end;
    }
    (table, chunk as i32)
}

impl Part {
    const NONE: Self = Self {
        units: Address::NONE,
        first_chunk: 0,
        end_chunk: 0,
        tiles: 0,
        unit_bytes: 0,
        format: 0,
        rows: 0,
        col: 0,
        units_of_chunk: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernels read the same layout.
    #[test]
    fn the_job_is_laid_out_as_the_kernels_read_it() {
        assert_eq!((size_of::<Part>(), size_of::<Wide>()), (40, 4 * 40 + 3 * 8 + 10 * 4));
        assert_eq!(operand_halves(256), 17 * 1024, "a chunk of 64 rows");
    }

    #[test]
    fn rows_are_padded_to_what_the_kernels_take() {
        assert_eq!([9, 16, 17, 32, 33, 64].map(pieces), [2, 2, 4, 4, 8, 8]);
    }
}
