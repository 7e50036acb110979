//! Plain loops.

use crate::cpu::widest::fused;
use crate::linear::formats::Format;
use crate::linear::packed::{CHUNK, TILE, Tile};
use crate::linear::round::Panel;

/// With `FMA` the result is bit for bit that of every version with registers, on any processor.
pub(super) fn multiply<F: Format, const N: usize, const FMA: bool>(
    tile: &Tile<'_>,
    panel: &Panel<'_>,
    out: &mut [[f32; TILE]; N],
) {
    let layout = F::LAYOUT;
    *out = [[0.0; TILE]; N];
    for chunk in 0..panel.quants.len() / N {
        for row in 0..TILE {
            let quants: [i32; CHUNK] =
                std::array::from_fn(|at| tile.quant(&layout, chunk, row, at).into());
            let (scales, minimum) = tile.scales(&layout, chunk, row);
            for (n, out) in out.iter_mut().enumerate() {
                let at = chunk * N + n;
                let inputs = &panel.quants[at];
                let dot = |half: usize| -> i32 {
                    let part = 16 * half..16 * half + 16;
                    let pairs = quants[part.clone()].iter().zip(&inputs[part]);
                    let sum: i32 = pairs.map(|(w, x)| w * i32::from(*x)).sum();
                    sum + panel.halves[at][half] * layout.offset()
                };
                let product = if layout.has_two_scales() {
                    fused::<FMA>(dot(1) as f32, scales[1], dot(0) as f32 * scales[0])
                } else {
                    (dot(0) + dot(1)) as f32 * scales[0]
                };
                let sum = fused::<FMA>(product, panel.scales[at], out[row]);
                out[row] = if layout.has_minimums {
                    fused::<FMA>(minimum, panel.sums[at], sum)
                } else {
                    sum
                };
            }
        }
    }
}
