//! One or two rows: what the kernels of `few.cu` are told, and how they are launched.
//!
//! From Hopper on, a launch starts while its predecessor runs, and fills its rings before the
//! predecessor has ended. For that a multiprocessor holds a block of each of two launches, and must
//! not hold two of one: the rest of the card would wait for them. After launches of linear layers
//! that cannot happen, since those have a block everywhere. After a mixer it could. So the launches
//! that add to the residual stream, which come after a mixer or after one that does not, ask for
//! more than half of a multiprocessor's shared memory, and all others for less.

use super::Matrix;
use super::job::{HELD_COLS, MOST_PARTS, Needs, Placed, Room, Source};
use super::layout::{tiles, unit_bytes, unit_cols};
use crate::cuda::{Address, Grid};

/// Rows that the kernels take.
pub(super) const MOST_ROWS: usize = 2;

/// Threads of a block, and its warps.
const THREADS: u32 = 256;
const WARPS: usize = 8;

/// Slots of a warp, at most: more make the memory no faster.
const MOST_SLOTS: usize = 5;

/// Shared memory that a card keeps of each block.
const RESERVED_BYTES: usize = 1024;

/// Shared memory is given in pieces of so many bytes.
const PIECE_BYTES: usize = 128;

/// The first generation whose launches overlap.
const OVERLAPPING: u32 = 90;

/// Sums of a tile: its rows, by rows of activations.
const SUM_BYTES: usize = 4 * MOST_ROWS * super::layout::TILE_ROWS;

/// `Part` of `few.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Part {
    units: Address,
    gated: Address,
    first_unit: i32,
    end_unit: i32,
    units_of_tile: i32,
    unit_bytes: i32,
    format: u32,
    rows: i32,
    col: i32,
    unused: i32,
}

/// `Few` of `few.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Few {
    parts: [Part; MOST_PARTS],
    pub(super) x: Address,
    pub(super) norm: Address,
    pub(super) out: Address,
    pub(super) rows_of_x: Address,
    pub(super) x_stride: i32,
    pub(super) source: Source,
    pub(super) eps: f32,
    cols: i32,
    padded: i32,
    halves: i32,
    floats: i32,
    pub(super) stride: i32,
    add: i32,
    units: i32,
    slot_bytes: i32,
    slots: i32,
    early_slots: i32,
}

/// What is asked of a launch.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) parts: &'a [Placed<'a>],
    /// Whether there are two parts, gates and what they gate, to be multiplied by one another.
    pub(super) pairs: bool,
    pub(super) rows: usize,
    pub(super) source: Source,
    /// Whether products are added to what is there.
    pub(super) add: bool,
}

/// A kernel and its grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) kernel: &'static str,
    pub(super) grid: Grid,
    slots: usize,
    early_slots: usize,
}

/// What of a launch its grid follows from.
#[derive(Clone, Copy, Debug)]
struct Load {
    needs: Needs,
    rows: usize,
    /// Tiles, or pairs of them, each of which stays within a block.
    grains: usize,
    pairs: bool,
    add: bool,
}

impl Plan {
    /// None where the kernels do not apply, or their rings do not fit.
    pub(super) fn of(wanted: &Wanted<'_>, generation: u32, room: Room) -> Option<Self> {
        let Wanted { parts, pairs, rows, source, add } = *wanted;
        let cols = parts[0].matrix.cols;
        let normed = source != Source::NormedRows || cols <= HELD_COLS;
        let alike = !pairs || parts.len() == 2 && parts[0].matrix.is_like(parts[1].matrix);
        if rows > MOST_ROWS || !cols.is_multiple_of(8) || !normed || !alike {
            return None;
        }
        let tiles: usize = parts.iter().map(|part| tiles(part.matrix.rows)).sum();
        let grains = if pairs { tiles / 2 } else { tiles };
        Self::fit(&Load { needs: Needs::of(parts), rows, grains, pairs, add }, generation, room)
    }

    fn fit(load: &Load, generation: u32, room: Room) -> Option<Self> {
        let Load { needs, rows, grains, pairs, add } = load;
        let overlaps = generation >= OVERLAPPING;
        let places = room.multiprocessors as usize * if overlaps { 1 } else { 2 };
        let blocks = places.min(*grains);
        // The kernel finds its share of the units in 32 bits.
        u32::try_from(needs.units * blocks).ok()?;
        let pair_bytes = if *pairs { 2 * SUM_BYTES * (grains.div_ceil(blocks) + 1) } else { 0 };
        let others = staged_bytes(needs, *rows) + 128 + 2 * WARPS * SUM_BYTES + pair_bytes;

        let half = (room.shared_bytes as usize + RESERVED_BYTES) / 2 - RESERVED_BYTES;
        let (half, slot) = (half / PIECE_BYTES * PIECE_BYTES, WARPS * (needs.slot_bytes + 8));
        let fit = |bytes: usize| (bytes.saturating_sub(others) / slot).min(MOST_SLOTS);
        let mut slots = fit(half - PIECE_BYTES);
        if slots < 2 && overlaps {
            slots = fit(room.shared_bytes as usize);
        }
        let mut shared = others + slots * slot;
        if overlaps && *add {
            shared = shared.max(half + PIECE_BYTES);
        }
        let kernel = if *rows == 1 { "linear_one" } else { "linear_two" };
        let grid = Grid::line(blocks as u32, THREADS).with_shared(shared as u32);
        let early_slots = if overlaps { slots } else { 1 };
        (slots >= 2).then_some(Self { kernel, grid, slots, early_slots })
    }
}

/// Bytes of rows of activations in shared memory.
fn staged_bytes(needs: &Needs, rows: usize) -> usize {
    let forms = usize::from(needs.halves) + 2 * usize::from(needs.floats);
    2 * rows * forms * (needs.padded + 32)
}

impl Few {
    /// Without activations and outputs, which the caller sets.
    pub(super) fn new(wanted: &Wanted<'_>, plan: &Plan) -> Self {
        let Wanted { parts, pairs, source, add, .. } = *wanted;
        let needs = Needs::of(parts);
        let (parts_table, units) = table(parts, pairs);
        let nowhere = Address::NONE;
        Self {
            parts: parts_table,
            x: nowhere,
            norm: nowhere,
            out: nowhere,
            rows_of_x: nowhere,
            x_stride: 0,
            source,
            eps: 0.0,
            cols: parts[0].matrix.cols as i32,
            padded: needs.padded as i32,
            halves: i32::from(needs.halves),
            floats: i32::from(needs.floats),
            stride: 0,
            add: i32::from(add),
            units,
            slot_bytes: needs.slot_bytes as i32,
            slots: plan.slots as i32,
            early_slots: plan.early_slots as i32,
        }
    }
}

/// The parts as the kernel knows them, and all their units.
fn table(parts: &[Placed<'_>], pairs: bool) -> ([Part; MOST_PARTS], i32) {
    let (mut table, mut unit) = ([Part::NONE; MOST_PARTS], 0);
    let (first, gated) = if pairs { parts.split_at(1) } else { (parts, &parts[..0]) };
    for (part, placed) in table.iter_mut().zip(first) {
        let units = units_of(placed.matrix) * if pairs { 2 } else { 1 };
        *part = Part::of(placed, unit, unit + units as i32);
        part.gated = gated.first().map_or(Address::NONE, |gated| gated.matrix.units.at(0));
        unit += units as i32;
    }
    (table, unit)
}

fn units_of(matrix: &Matrix) -> usize {
    tiles(matrix.rows) * matrix.padded() / unit_cols(matrix.format)
}

impl Part {
    const NONE: Self = Self {
        units: Address::NONE,
        gated: Address::NONE,
        first_unit: 0,
        end_unit: 0,
        units_of_tile: 0,
        unit_bytes: 0,
        format: 0,
        rows: 0,
        col: 0,
        unused: 0,
    };

    fn of(placed: &Placed<'_>, first_unit: i32, end_unit: i32) -> Self {
        let matrix = placed.matrix;
        Self {
            units: matrix.units.at(0),
            gated: Address::NONE,
            first_unit,
            end_unit,
            units_of_tile: (matrix.padded() / unit_cols(matrix.format)) as i32,
            unit_bytes: unit_bytes(matrix.format) as i32,
            format: matrix.format.ggml_id(),
            rows: matrix.rows as i32,
            col: placed.col as i32,
            unused: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::WeightType;

    const HOPPER: Room = Room { multiprocessors: 132, shared_bytes: 232_448 };
    const AMPERE: Room = Room { multiprocessors: 108, shared_bytes: 166_912 };

    fn load(format: WeightType, cols: usize, add: bool) -> Load {
        let (rows, grains) = (1, 256);
        let needs = Needs::of_one(format, 16 * grains, cols);
        Load { needs, rows, grains, pairs: false, add }
    }

    /// On a multiprocessor there is room for a block of a launch that adds and one of a launch that
    /// does not, and none for two that add.
    #[test]
    fn blocks_of_unlike_launches_share_a_multiprocessor() {
        use WeightType::{BF16, Q4_K, Q6_K, Q8_0};
        for format in [BF16, Q4_K, Q6_K, Q8_0] {
            for cols in [1024, 4096, 5120, 12288] {
                let taken = |add| {
                    let plan = Plan::fit(&load(format, cols, add), 90, HOPPER).expect("it fits");
                    assert_eq!(plan.grid.blocks, [132, 1, 1]);
                    assert_eq!(plan.early_slots, plan.slots);
                    plan.grid.shared as usize + RESERVED_BYTES
                };
                let (adds, other) = (taken(true), taken(false));
                let all = HOPPER.shared_bytes as usize + RESERVED_BYTES;
                assert!(adds + other <= all, "{format} {cols}: {adds} and {other} of {all}");
                assert!(2 * adds > all, "{format} {cols}: {adds} twice in {all}");
            }
        }
    }

    /// Where launches do not overlap, a multiprocessor has two blocks of one.
    #[test]
    fn cards_whose_launches_do_not_overlap_get_two_blocks_a_multiprocessor() {
        for add in [true, false] {
            let plan = Plan::fit(&load(WeightType::Q4_K, 4096, add), 80, AMPERE).expect("it fits");
            assert_eq!((plan.grid.blocks, plan.early_slots), ([216, 1, 1], 1));
            let all = AMPERE.shared_bytes as usize + RESERVED_BYTES;
            assert!(2 * (plan.grid.shared as usize + RESERVED_BYTES) <= all);
        }
    }

    /// What does not fit is left to the kernels for more rows.
    #[test]
    fn what_does_not_fit_is_refused() {
        let wide = load(WeightType::F32, 65_536, false);
        assert_eq!(Plan::fit(&wide, 90, HOPPER), None, "activations fill the shared memory");
        let many = Load {
            needs: Needs::of_one(WeightType::Q4_K, 1 << 26, 4096),
            grains: 1 << 22,
            ..load(WeightType::Q4_K, 4096, false)
        };
        assert_eq!(Plan::fit(&many, 90, HOPPER), None, "units times blocks pass 32 bits");
    }

    /// The kernel reads the same layout: places first, then numbers, without gaps.
    #[test]
    fn the_job_is_laid_out_as_the_kernel_reads_it() {
        assert_eq!((size_of::<Part>(), size_of::<Few>()), (48, 4 * 48 + 4 * 8 + 13 * 4 + 4));
        assert_eq!(std::mem::offset_of!(Few, x_stride), 4 * 48 + 4 * 8);
    }
}
