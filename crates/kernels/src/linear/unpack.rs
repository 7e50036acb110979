//! One block of quantised weights as unsigned quants with their scales.

use crate::quant::WeightType;

/// The fields of a block.
pub(super) struct Fields {
    /// Unsigned: signed formats have their offset added.
    pub(super) quants: [u8; 256],
    /// Per 32: scale and minimum; or per 16: a signed scale.
    pub(super) scales: [u8; 16],
    /// Half precision: the scale, and that of the minimums.
    pub(super) halves: [u16; 2],
}

impl Default for Fields {
    fn default() -> Self {
        Self { quants: [0; 256], scales: [0; 16], halves: [0; 2] }
    }
}

/// Takes a block apart.
///
/// # Panics
/// When the format has no packed form.
pub(super) fn unpack(ty: WeightType, block: &[u8], fields: &mut Fields) {
    match ty {
        WeightType::Q8_0 => q8_0(block, fields),
        WeightType::Q4_0 => q4_0(block, fields),
        WeightType::Q6_K => q6_k(block, fields),
        WeightType::Q4_K | WeightType::Q5_K => q45_k(block, ty == WeightType::Q5_K, fields),
        _ => unreachable!("{ty} is not packed"),
    }
}

fn half(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// `d: f16`, 32 signed bytes.
fn q8_0(block: &[u8], fields: &mut Fields) {
    fields.halves[0] = half(block, 0);
    for (quant, byte) in fields.quants.iter_mut().zip(&block[2..34]) {
        *quant = byte ^ 128;
    }
}

/// `d: f16`, 16 bytes: low nibbles are the first half, high nibbles the second, both less 8.
fn q4_0(block: &[u8], fields: &mut Fields) {
    fields.halves[0] = half(block, 0);
    let (low, high) = fields.quants[..32].split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&block[2..18]) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// `d, dmin: f16`, 12 bytes of 6-bit scales and minimums for 8 groups of 32, for Q5_K 32 bytes of
/// fifth bits, 128 bytes of nibbles: of each 32 bytes the low nibbles come first.
fn q45_k(block: &[u8], five_bits: bool, fields: &mut Fields) {
    fields.halves = [half(block, 0), half(block, 2)];
    for (group, pair) in fields.scales.chunks_exact_mut(2).enumerate() {
        let (scale, min) = six_bit_pair(&block[4..16], group);
        pair.copy_from_slice(&[scale, min]);
    }
    let (fifth, nibbles) =
        if five_bits { (&block[16..48], &block[48..]) } else { (&block[..0], &block[16..]) };
    let quants = fields.quants.chunks_exact_mut(64);
    for (at, (quants, bytes)) in quants.zip(nibbles.chunks_exact(32)).enumerate() {
        let (low, high) = quants.split_at_mut(32);
        for ((low, high), byte) in low.iter_mut().zip(high.iter_mut()).zip(bytes) {
            *low = byte & 15;
            *high = byte >> 4;
        }
        for ((low, high), bits) in low.iter_mut().zip(high).zip(fifth) {
            *low |= ((bits >> (2 * at)) & 1) << 4;
            *high |= ((bits >> (2 * at + 1)) & 1) << 4;
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
fn q6_k(block: &[u8], fields: &mut Fields) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    fields.halves[0] = half(rest, 16);
    fields.scales.copy_from_slice(&rest[..16]);
    let halves = fields.quants.chunks_exact_mut(128).zip(low.chunks_exact(64));
    for ((quants, low), high) in halves.zip(high.chunks_exact(32)) {
        for at in 0..32 {
            let quant = |nibble: u8, pair: u8| nibble | ((pair & 3) << 4);
            quants[at] = quant(low[at] & 15, high[at]);
            quants[at + 32] = quant(low[at + 32] & 15, high[at] >> 2);
            quants[at + 64] = quant(low[at] >> 4, high[at] >> 4);
            quants[at + 96] = quant(low[at + 32] >> 4, high[at] >> 6);
        }
    }
}
