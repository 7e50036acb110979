//! Blocks to f32, written as the format defines them.

mod blocks_of_32;
mod k_quants;

use half::{bf16, f16};

use super::WeightType;

/// Writes the f32 values of `blocks` to `out`.
///
/// # Panics
///
/// If `blocks` is not a whole number of blocks of `ty`, or `out` is not exactly as long as the
/// elements that they hold.
pub fn dequantize(ty: WeightType, blocks: &[u8], out: &mut [f32]) {
    assert_eq!(
        ty.bytes(out.len() as u64),
        Some(blocks.len() as u64),
        "{} bytes of {ty} do not hold {} elements",
        blocks.len(),
        out.len()
    );
    match ty {
        WeightType::F32 => each(blocks, out, |b: &[u8; 4], y: &mut [f32; 1]| {
            y[0] = f32::from_le_bytes(*b);
        }),
        WeightType::F16 => each(blocks, out, |b: &[u8; 2], y: &mut [f32; 1]| {
            y[0] = f16::from_le_bytes(*b).to_f32();
        }),
        WeightType::BF16 => each(blocks, out, |b: &[u8; 2], y: &mut [f32; 1]| {
            y[0] = bf16::from_le_bytes(*b).to_f32();
        }),
        WeightType::Q4_0 => each(blocks, out, blocks_of_32::q4_0),
        WeightType::Q4_1 => each(blocks, out, blocks_of_32::q4_1),
        WeightType::Q5_0 => each(blocks, out, blocks_of_32::q5_0),
        WeightType::Q5_1 => each(blocks, out, blocks_of_32::q5_1),
        WeightType::Q8_0 => each(blocks, out, blocks_of_32::q8_0),
        WeightType::IQ4_NL => each(blocks, out, blocks_of_32::iq4_nl),
        WeightType::MXFP4 => each(blocks, out, blocks_of_32::mxfp4),
        WeightType::Q2_K => each(blocks, out, k_quants::q2_k),
        WeightType::Q3_K => each(blocks, out, k_quants::q3_k),
        WeightType::Q4_K => each(blocks, out, k_quants::q4_k),
        WeightType::Q5_K => each(blocks, out, k_quants::q5_k),
        WeightType::Q6_K => each(blocks, out, k_quants::q6_k),
        WeightType::IQ4_XS => each(blocks, out, k_quants::iq4_xs),
    }
}

/// Calls `block` for every pair of `B` bytes and the `E` elements that they hold.
#[inline]
fn each<const B: usize, const E: usize>(
    blocks: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; E]),
) {
    let (blocks, _) = blocks.as_chunks::<B>();
    let (out, _) = out.as_chunks_mut::<E>();
    for (bytes, values) in blocks.iter().zip(out) {
        block(bytes, values);
    }
}

/// The half-precision number at `at`.
#[inline]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The values that the 4-bit indices of `IQ4_NL` and `IQ4_XS` stand for, before the scale.
const IQ4_TABLE: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
