//! Formats with super-blocks of 256 elements, whose scales are themselves quantised.
//!
//! The products are taken in the order of the format's definition (first the scale of the group,
//! then the element), because f32 results depend on it.

use super::{IQ4_TABLE, half_at};

/// Block: 16 bytes (scale, minimum nibbles), 64 bytes of 2-bit elements, f16 d, f16 dmin.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, qs) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] & 15);
        let minimum = dmin * f32::from(scales[group] >> 4);
        let (at, shift) = two_bit_place(group);
        for (y, &byte) in values.iter_mut().zip(&qs[at..]) {
            *y = scale * f32::from(byte >> shift & 3) - minimum;
        }
    }
}

/// Block: 32 bytes of third bits, 64 bytes of 2-bit elements, 12 bytes of 6-bit scales, f16 d.
///
/// A third bit that is not set takes four away.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (third, qs, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let low = packed[group % 8] >> (4 * (group / 8)) & 15;
        let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = d * (i32::from(low | high << 4) - 32) as f32;
        let (at, shift) = two_bit_place(group);
        for (i, y) in values.iter_mut().enumerate() {
            let bits = i32::from(qs[at + i] >> shift & 3);
            let set = third[at % 32 + i] >> (group / 2) & 1 == 1;
            *y = scale * (if set { bits } else { bits - 4 }) as f32;
        }
    }
}

/// Where the 2-bit elements of group `group` (16 elements) begin, and by how much to shift.
///
/// A half of the block (128 elements) has 32 bytes, each with one element of four runs of 32.
fn two_bit_place(group: usize) -> (usize, usize) {
    let (half, run, part) = (group / 8, group % 8 / 2, group % 2);
    (32 * half + 16 * part, 2 * run)
}

/// Block: f16 d, f16 dmin, 12 bytes of 6-bit scales and minimums, 128 bytes of 4-bit elements.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, qs) = (&block[4..16], &block[16..]);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = six_bit_pair(packed, group);
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let shift = 4 * (group % 2);
        for (y, &byte) in values.iter_mut().zip(&qs[32 * (group / 2)..]) {
            *y = scale * f32::from(byte >> shift & 15) - minimum;
        }
    }
}

/// Block: as `q4_k`, with 32 bytes of fifth bits before the 4-bit elements.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, fifth, qs) = (&block[4..16], &block[16..48], &block[48..]);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = six_bit_pair(packed, group);
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let shift = 4 * (group % 2);
        for ((y, &byte), &bits) in values.iter_mut().zip(&qs[32 * (group / 2)..]).zip(fifth) {
            let q = (byte >> shift & 15) | (bits >> group & 1) << 4;
            *y = scale * f32::from(q) - minimum;
        }
    }
}

/// The 6-bit scale and minimum of one of eight groups.
///
/// Groups 0 to 3 have a byte each for scale and minimum; the nibbles of groups 4 to 7 are in the
/// last four bytes and their upper two bits in the spare bits of the first eight.
fn six_bit_pair(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    let nibbles = packed[group + 4];
    let scale = (nibbles & 15) | (packed[group - 4] >> 6) << 4;
    let minimum = (nibbles >> 4) | (packed[group] >> 6) << 4;
    (scale, minimum)
}

/// Block: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales, f16 d.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, upper, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] as i8);
        // A half (128 elements) has four runs of 32: two in low nibbles, two in high ones.
        let (half, run, part) = (group / 8, group % 8 / 2, group % 2);
        let low = &low[64 * half + 32 * (run % 2) + 16 * part..];
        let upper = &upper[32 * half + 16 * part..];
        for ((y, &nibbles), &pairs) in values.iter_mut().zip(low).zip(upper) {
            let q = (nibbles >> (4 * (run / 2)) & 15) | (pairs >> (2 * run) & 3) << 4;
            *y = scale * (i32::from(q) - 32) as f32;
        }
    }
}

/// Block: f16 d, 16 upper scale bits, 4 bytes of lower scale bits, 128 bytes of indices.
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = half_at(block, 0);
    let upper = u16::from_le_bytes([block[2], block[3]]);
    let (lower, qs) = (&block[4..8], &block[8..]);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let low = lower[group / 2] >> (4 * (group % 2)) & 15;
        let high = (upper >> (2 * group) & 3) as u8;
        let scale = d * (i32::from(low | high << 4) - 32) as f32;
        for (i, &byte) in qs[16 * group..16 * group + 16].iter().enumerate() {
            values[i] = scale * f32::from(IQ4_TABLE[usize::from(byte & 15)]);
            values[i + 16] = scale * f32::from(IQ4_TABLE[usize::from(byte >> 4)]);
        }
    }
}
