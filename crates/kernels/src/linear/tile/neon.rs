//! 128 bits with 8-bit dot products: a quad of four rows is one register. The instruction takes its
//! four inputs out of a register of sixteen, so a chunk's inputs are two loads.
//!
//! The intrinsics for it are not stable in Rust; the instruction in assembly is.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::linear::formats::Format;
use crate::linear::packed::{Line, TILE, Tile};
use crate::linear::round::{PANEL, Panel};

/// Rows of a register.
const LANES: usize = 4;

/// # Safety
/// The processor has the features, and the lengths are those that `tile::check` asks for.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn multiply<F: Format, const N: usize>(
    tile: &Tile<'_>,
    panel: &Panel<'_>,
    out: &mut [[f32; TILE]; N],
) {
    // As many sums as there are registers for: a full panel takes the tile in two halves.
    if N == PANEL {
        for row in [0, TILE / 2] {
            // SAFETY: as the caller says.
            unsafe { multiply_rows::<F, N, 2>(tile, panel, row, out) };
        }
    } else {
        // SAFETY: as the caller says.
        unsafe { multiply_rows::<F, N, 4>(tile, panel, 0, out) };
    }
}

/// Multiplies `G` registers of rows from `first` on.
///
/// # Safety
/// As for [`multiply`]; the rows are within the tile.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn multiply_rows<F: Format, const N: usize, const G: usize>(
    tile: &Tile<'_>,
    panel: &Panel<'_>,
    first: usize,
    out: &mut [[f32; TILE]; N],
) {
    let layout = F::LAYOUT;
    let zero = vdupq_n_f32(0.0);
    let (mut scale, mut min_scale) = ([zero; G], [zero; G]);
    let mut sums = [[zero; G]; N];
    for chunk in 0..panel.quants.len() / N {
        // SAFETY: `chunk` is below the chunks that the lengths were checked for.
        unsafe {
            if chunk % layout.block_chunks == 0 {
                let halves = chunk / layout.block_chunks * layout.block_halves;
                let halves = tile.halves.as_ptr().add(halves + first);
                scale = std::array::from_fn(|group| four_halves(halves.add(LANES * group)));
                if layout.has_minimums {
                    let halves = halves.add(TILE);
                    min_scale = std::array::from_fn(|group| four_halves(halves.add(LANES * group)));
                }
            }
            let lines = tile.quants.as_ptr().add(chunk * layout.lines);
            let bytes = tile.scales.as_ptr().add(chunk * layout.chunk_scales);
            for group in 0..G {
                let row = first + LANES * group;
                let quads = quads::<F>(lines, row);
                let scales = scales::<F>(scale[group], min_scale[group], bytes.add(row));
                for (n, sums) in sums.iter_mut().enumerate() {
                    let at = chunk * N + n;
                    sums[group] = add_chunk::<F>(&quads, &scales, panel, at, sums[group]);
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (group, sum) in sums.into_iter().enumerate() {
            // SAFETY: the rows are within the sixteen.
            unsafe { vst1q_f32(out.as_mut_ptr().add(first + LANES * group), sum) };
        }
    }
}

/// # Safety
/// Four numbers are behind the pointer.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn four_halves(halves: *const u16) -> float32x4_t {
    // SAFETY: the caller says so.
    vcvt_f32_f16(vreinterpret_f16_u16(unsafe { vld1_u16(halves) }))
}

/// A chunk's scales, or scale and minimums, of four rows.
///
/// # Safety
/// The chunk's scales, if the format has any, are behind the pointer, which is at the first of the
/// rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn scales<F: Format>(
    scale: float32x4_t,
    min_scale: float32x4_t,
    bytes: *const u8,
) -> [float32x4_t; 2] {
    let layout = F::LAYOUT;
    if layout.chunk_scales == 0 {
        return [scale; 2];
    }
    // SAFETY: both kinds hold sixteen bytes, of which the rows' four are read.
    let four = |at: usize| unsafe { bytes.add(at).cast::<[u8; LANES]>().read() };
    let [first, second] = [four(0), four(TILE)];
    // Both are exact in single precision.
    let unsigned = |bytes: [u8; LANES]| from_array(bytes.map(f32::from));
    let signed = |bytes: [u8; LANES]| from_array(bytes.map(|byte| f32::from(byte as i8)));
    if layout.has_minimums {
        [vmulq_f32(scale, unsigned(first)), vmulq_f32(min_scale, unsigned(second))]
    } else {
        [vmulq_f32(scale, signed(first)), vmulq_f32(scale, signed(second))]
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn from_array(values: [f32; LANES]) -> float32x4_t {
    // SAFETY: the array is as long as the load.
    unsafe { vld1q_f32(values.as_ptr()) }
}

/// A chunk's quads of four rows, a byte a quant. Eight-bit quants become signed.
///
/// # Safety
/// The chunk's lines are behind the pointer.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn quads<F: Format>(lines: *const Line, row: usize) -> [int8x16_t; 8] {
    // SAFETY: the caller has the chunk's lines there, and four rows from `row` on are in each.
    let line = |at: usize| unsafe { vld1q_u8(lines.add(at).cast::<u8>().add(4 * row)) };
    let mut quads = [vdupq_n_u8(0); 8];
    if F::LAYOUT.bits == 8 {
        for (at, quad) in quads.iter_mut().enumerate() {
            *quad = veorq_u8(line(at), vdupq_n_u8(128));
        }
        return quads.map(|quad| vreinterpretq_s8_u8(quad));
    }
    for at in 0..4 {
        let line = line(at);
        quads[at] = vandq_u8(line, vdupq_n_u8(15));
        quads[at + 4] = vshrq_n_u8::<4>(line);
    }
    for (at, quad) in quads.iter_mut().enumerate() {
        let (high, bit, mask) = match F::LAYOUT.bits {
            5 => (line(4), at, 1),
            6 => (line(4 + at / 4), 2 * (at % 4), 3),
            _ => break,
        };
        // A shift by a negative number is one to the right.
        let high = vshlq_u8(high, vdupq_n_s8(-(bit as i8)));
        *quad = vorrq_u8(*quad, vshlq_n_u8::<4>(vandq_u8(high, vdupq_n_u8(mask))));
    }
    quads.map(|quad| vreinterpretq_s8_u8(quad))
}

/// To each row's sum the products of its four quants with inputs `4 * QUAD..` of the sixteen.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_quad<const QUAD: usize>(
    mut sums: int32x4_t,
    weights: int8x16_t,
    inputs: int8x16_t,
) -> int32x4_t {
    // SAFETY: the function's features have the instruction, which touches registers only.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {inputs:v}.4b[{quad}]",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            inputs = in(vreg) inputs,
            quad = const QUAD,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// To each row's sum the products of half a chunk.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_half(sums: int32x4_t, quads: &[int8x16_t], inputs: int8x16_t) -> int32x4_t {
    let sums = dot_quad::<0>(sums, quads[0], inputs);
    let sums = dot_quad::<1>(sums, quads[1], inputs);
    let sums = dot_quad::<2>(sums, quads[2], inputs);
    dot_quad::<3>(sums, quads[3], inputs)
}

/// Adds the products with input row and chunk `at` of the panel to `sum`.
///
/// # Safety
/// The panel holds `at`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn add_chunk<F: Format>(
    quads: &[int8x16_t; 8],
    scales: &[float32x4_t; 2],
    panel: &Panel<'_>,
    at: usize,
    sum: float32x4_t,
) -> float32x4_t {
    let layout = F::LAYOUT;
    // SAFETY: the panel holds the chunk's 32 inputs, its sums and its scale.
    let (low_inputs, high_inputs, halves, input_scale, input_sum) = unsafe {
        let inputs = panel.quants.as_ptr().add(at).cast::<i8>();
        (
            vld1q_s8(inputs),
            vld1q_s8(inputs.add(16)),
            *panel.halves.as_ptr().add(at),
            vdupq_n_f32(*panel.scales.as_ptr().add(at)),
            vdupq_n_f32(*panel.sums.as_ptr().add(at)),
        )
    };
    let (low_quads, high_quads) = quads.split_at(4);
    let offset = |sum: i32| vdupq_n_s32(sum << layout.offset_shift);
    if layout.has_two_scales() {
        let low = dot_half(offset(halves[0]), low_quads, low_inputs);
        let high = dot_half(offset(halves[1]), high_quads, high_inputs);
        let product = vmulq_f32(vcvtq_f32_s32(low), scales[0]);
        let product = vfmaq_f32(product, vcvtq_f32_s32(high), scales[1]);
        return vfmaq_f32(sum, product, input_scale);
    }
    // Eight-bit quants are signed here, so nothing has to be taken off.
    let start = if layout.offset_shift == 0 || layout.bits == 8 {
        vdupq_n_s32(0)
    } else {
        offset(halves[0] + halves[1])
    };
    let product = dot_half(dot_half(start, low_quads, low_inputs), high_quads, high_inputs);
    let product = vmulq_f32(vcvtq_f32_s32(product), scales[0]);
    let sum = vfmaq_f32(sum, product, input_scale);
    if layout.has_minimums { vfmaq_f32(sum, scales[1], input_sum) } else { sum }
}
