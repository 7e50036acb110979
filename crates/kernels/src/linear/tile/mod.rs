//! A tile of weights times a panel of inputs.
//!
//! Every version takes a chunk's products as exact integers and adds chunk after chunk to one
//! single-precision sum for each weight row and input row. So a result does not depend on what is
//! multiplied beside it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(test)]
mod tests;

use super::formats::{Format, layout, with_format};
use super::packed::{CHUNK, Packed, TILE, Tile};
use super::round::{PANEL, Panel};
use crate::cpu::widest::{Level, PORTABLE_FMA};

/// Products of a panel's rows with a tile's rows.
pub(super) type Sums = [[f32; TILE]; PANEL];

/// Multiplies tile `at` of `packed` with `panel`, into the first `panel.rows` of `sums`.
pub(super) fn multiply(
    level: Level,
    packed: &Packed,
    at: usize,
    panel: &Panel<'_>,
    sums: &mut Sums,
) {
    let tile = packed.tile(at);
    check(packed, &tile, panel);
    with_format!(packed.ty, F => match panel.rows {
        1 => run::<F, 1>(level, &tile, panel, sums),
        2 => run::<F, 2>(level, &tile, panel, sums),
        4 => run::<F, 4>(level, &tile, panel, sums),
        PANEL => run::<F, PANEL>(level, &tile, panel, sums),
        rows => unreachable!("a panel of {rows}"),
    });
}

/// The lengths that the versions with raw loads rest on.
fn check(packed: &Packed, tile: &Tile<'_>, panel: &Panel<'_>) {
    let layout = layout(packed.ty).expect("a packed format");
    let chunks = packed.cols / CHUNK;
    assert!(chunks.is_multiple_of(layout.block_chunks));
    assert_eq!(tile.quants.len(), chunks * layout.lines);
    assert_eq!(tile.scales.len(), chunks * layout.chunk_scales);
    assert_eq!(tile.halves.len(), chunks / layout.block_chunks * layout.block_halves);
    let inputs = chunks * panel.rows;
    assert_eq!(panel.quants.len(), inputs, "inputs as wide as the weights");
    assert_eq!((panel.scales.len(), panel.sums.len()), (inputs, inputs));
    assert_eq!(panel.halves.len(), inputs);
}

fn run<F: Format, const N: usize>(
    level: Level,
    tile: &Tile<'_>,
    panel: &Panel<'_>,
    sums: &mut Sums,
) {
    let sums = sums.first_chunk_mut::<N>().expect("a panel is not larger");
    match level {
        // SAFETY: a level is only ever used on a processor that has it; `check` has seen the
        // lengths.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512::multiply::<F, N>(tile, panel, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::multiply::<F, N>(tile, panel, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Dot => unsafe { neon::multiply::<F, N>(tile, panel, sums) },
        Level::Portable => portable::multiply::<F, N, PORTABLE_FMA>(tile, panel, sums),
    }
}
