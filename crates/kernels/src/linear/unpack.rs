//! Rows of quantised weights as 8-bit integers with a scale and a minimum per 16.
//!
//! A weight is `scale * quant - minimum`. A row is unpacked once and then multiplied with every
//! input row of the step.

use half::f16;

use super::simd::GROUP;
use crate::quant::WeightType;

/// An unpacked row.
#[derive(Default)]
pub(super) struct Row {
    /// `[cols]`.
    pub(super) quants: Vec<i8>,
    /// `[cols / 16]`.
    pub(super) scales: Vec<f32>,
    /// `[cols / 16]`; empty for formats without minimums.
    pub(super) minimums: Vec<f32>,
}

/// Whether [`unpack`] knows the format; the others are decoded to f32 instead.
pub(super) fn is_supported(ty: WeightType) -> bool {
    use WeightType::{Q4_0, Q4_K, Q5_K, Q6_K, Q8_0};
    matches!(ty, Q8_0 | Q4_0 | Q4_K | Q5_K | Q6_K)
}

/// Unpacks the blocks of one row of `cols` weights.
pub(super) fn unpack(ty: WeightType, blocks: &[u8], cols: usize, row: &mut Row) {
    row.quants.resize(cols, 0);
    row.scales.resize(cols / GROUP, 0.0);
    let has_minimums = matches!(ty, WeightType::Q4_K | WeightType::Q5_K);
    row.minimums.resize(if has_minimums { cols / GROUP } else { 0 }, 0.0);
    let blocks = blocks.chunks_exact(ty.block_bytes());
    let quants = row.quants.chunks_exact_mut(ty.block_elements());
    let groups = ty.block_elements() / GROUP;
    for (at, (block, quants)) in blocks.zip(quants).enumerate() {
        let scales = &mut row.scales[at * groups..(at + 1) * groups];
        match ty {
            WeightType::Q8_0 => q8_0(block, quants, scales),
            WeightType::Q4_0 => q4_0(block, quants, scales),
            WeightType::Q6_K => q6_k(block, quants, scales),
            WeightType::Q4_K | WeightType::Q5_K => {
                let minimums = &mut row.minimums[at * groups..(at + 1) * groups];
                q45_k(block, ty == WeightType::Q5_K, quants, scales, minimums);
            }
            _ => unreachable!("{ty} is not unpacked"),
        }
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `d: f16`, 32 signed bytes.
fn q8_0(block: &[u8], quants: &mut [i8], scales: &mut [f32]) {
    scales.fill(half(block, 0));
    for (quant, byte) in quants.iter_mut().zip(&block[2..]) {
        *quant = *byte as i8;
    }
}

/// `d: f16`, 16 bytes: low nibbles are the first half, high nibbles the second, both less 8.
fn q4_0(block: &[u8], quants: &mut [i8], scales: &mut [f32]) {
    scales.fill(half(block, 0));
    let (low, high) = quants.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = (byte & 15) as i8 - 8;
        *high = (byte >> 4) as i8 - 8;
    }
}

/// `d, dmin: f16`, 12 bytes of 6-bit scales and minimums for 8 groups of 32, for Q5_K 32 bytes of
/// fifth bits, 128 bytes of nibbles: of each 32 bytes the low nibbles come first.
fn q45_k(block: &[u8], five_bits: bool, quants: &mut [i8], scales: &mut [f32], mins: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    for group in 0..8 {
        let (scale, min) = six_bit_pair(packed, group);
        scales[2 * group..2 * group + 2].fill(d * f32::from(scale));
        mins[2 * group..2 * group + 2].fill(dmin * f32::from(min));
    }
    let (fifth, nibbles) =
        if five_bits { (&block[16..48], &block[48..]) } else { (&block[..0], &block[16..]) };
    for (at, (quants, bytes)) in
        quants.chunks_exact_mut(64).zip(nibbles.chunks_exact(32)).enumerate()
    {
        let (low, high) = quants.split_at_mut(32);
        for ((low, high), byte) in low.iter_mut().zip(high.iter_mut()).zip(bytes) {
            *low = (byte & 15) as i8;
            *high = (byte >> 4) as i8;
        }
        for ((low, high), bits) in low.iter_mut().zip(high).zip(fifth) {
            *low |= (((bits >> (2 * at)) & 1) << 4) as i8;
            *high |= (((bits >> (2 * at + 1)) & 1) << 4) as i8;
        }
    }
}

/// Scale and minimum `group` of the 12 bytes: the first four of each are the low six bits of bytes
/// 0-3 and 4-7, the last four are a nibble of bytes 8-11 under two bits left over in those.
fn six_bit_pair(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    let nibbles = packed[group + 4];
    let scale = (nibbles & 15) | ((packed[group - 4] >> 6) << 4);
    let min = (nibbles >> 4) | ((packed[group] >> 6) << 4);
    (scale, min)
}

/// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, `d: f16`; less 32.
fn q6_k(block: &[u8], quants: &mut [i8], scales: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let d = half(rest, 16);
    for (scale, byte) in scales.iter_mut().zip(rest) {
        *scale = d * f32::from(*byte as i8);
    }
    let halves = quants.chunks_exact_mut(128).zip(low.chunks_exact(64)).zip(high.chunks_exact(32));
    for ((quants, low), high) in halves {
        for at in 0..32 {
            let quant = |nibble: u8, pair: u8| (nibble | ((pair & 3) << 4)) as i8 - 32;
            quants[at] = quant(low[at] & 15, high[at]);
            quants[at + 32] = quant(low[at + 32] & 15, high[at] >> 2);
            quants[at + 64] = quant(low[at] >> 4, high[at] >> 4);
            quants[at + 96] = quant(low[at + 32] >> 4, high[at] >> 6);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Noise;
    use crate::quant::dequantize;

    /// Random blocks of every format unpack to what the format's definition decodes.
    #[test]
    fn unpacked_rows_equal_decoded_ones() {
        use WeightType::{Q4_0, Q4_K, Q5_K, Q6_K, Q8_0};
        for ty in [Q8_0, Q4_0, Q4_K, Q5_K, Q6_K] {
            assert!(is_supported(ty));
            let mut noise = Noise::new(13);
            let cols = 2 * ty.block_elements();
            let mut blocks: Vec<u8> =
                (0..2 * ty.block_bytes()).map(|_| noise.bits() as u8).collect();
            // Half-precision fields get finite values: the exponent's top bit goes.
            for block in blocks.chunks_exact_mut(ty.block_bytes()) {
                let last = block.len() - 1;
                for at in if ty == Q6_K { [last, last] } else { [1, 3] } {
                    block[at] &= 0xbf;
                }
            }
            let mut want = vec![0.0; cols];
            dequantize(ty, &blocks, &mut want);
            let mut row = Row::default();
            unpack(ty, &blocks, cols, &mut row);
            for (at, want) in want.iter().enumerate() {
                let min = row.minimums.get(at / GROUP).copied().unwrap_or(0.0);
                let got = row.scales[at / GROUP] * f32::from(row.quants[at]) - min;
                let close = (got - want).abs() <= 1e-5 * want.abs().max(min.abs());
                assert!(close, "{ty} at {at}: {got} for {want}");
            }
        }
    }
}
