//! f32 to blocks, for writing files.

mod blocks_of_32;
mod k_quants;
mod search;

use half::{bf16, f16};

use super::WeightType;

/// Writes values (a whole number of blocks, all finite) as blocks into exactly as many bytes.
///
/// # Panics
///
/// If the two lengths do not belong together.
pub type Encoder = fn(values: &[f32], blocks: &mut [u8]);

/// The function that writes `ty`; `None` for the formats that are only read.
pub fn encoder(ty: WeightType) -> Option<Encoder> {
    match ty {
        WeightType::F32 => Some(|x, y| each(x, y, |x: &[f32; 1]| x[0].to_le_bytes())),
        WeightType::F16 => {
            Some(|x, y| each(x, y, |x: &[f32; 1]| f16::from_f32(x[0]).to_le_bytes()))
        }
        WeightType::BF16 => {
            Some(|x, y| each(x, y, |x: &[f32; 1]| bf16::from_f32(x[0]).to_le_bytes()))
        }
        WeightType::Q4_0 => Some(|x, y| each(x, y, blocks_of_32::q4_0)),
        WeightType::Q8_0 => Some(|x, y| each(x, y, blocks_of_32::q8_0)),
        WeightType::Q4_K => Some(|x, y| each(x, y, k_quants::q4_k)),
        WeightType::Q5_K => Some(|x, y| each(x, y, k_quants::q5_k)),
        WeightType::Q6_K => Some(|x, y| each(x, y, k_quants::q6_k)),
        _ => None,
    }
}

/// Calls `block` for every `E` values and stores the `B` bytes that it makes of them.
fn each<const E: usize, const B: usize>(
    values: &[f32],
    blocks: &mut [u8],
    block: impl Fn(&[f32; E]) -> [u8; B],
) {
    let (values, rest) = values.as_chunks::<E>();
    let (blocks, spare) = blocks.as_chunks_mut::<B>();
    assert!(
        rest.is_empty() && spare.is_empty() && values.len() == blocks.len(),
        "{} blocks of {E} values and {} left over do not fill {} blocks and {} bytes",
        values.len(),
        rest.len(),
        blocks.len(),
        spare.len()
    );
    for (values, bytes) in values.iter().zip(blocks) {
        *bytes = block(values);
    }
}

/// Stores `value` as a half at `at` and returns what a reader will see.
fn store_half(block: &mut [u8], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}
