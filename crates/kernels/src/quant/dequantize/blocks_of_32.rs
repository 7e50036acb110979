//! Formats with one scale per 32 elements.
//!
//! The 4-bit part of every format here is laid out alike: of 16 bytes, the low nibbles are the
//! elements 0 to 15 and the high nibbles the elements 16 to 31.

use super::{IQ4_TABLE, half_at};

/// Twice the values of the sixteen E2M1 codes, so that they are whole; the scale is halved.
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Block: f16 scale, 16 bytes; value (q - 8) d.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (i, &byte) in block[2..].iter().enumerate() {
        out[i] = (i32::from(byte & 15) - 8) as f32 * d;
        out[i + 16] = (i32::from(byte >> 4) - 8) as f32 * d;
    }
}

/// Block: f16 scale, f16 minimum, 16 bytes; value q d + m.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, &byte) in block[4..].iter().enumerate() {
        out[i] = f32::from(byte & 15) * d + m;
        out[i + 16] = f32::from(byte >> 4) * d + m;
    }
}

/// Block: f16 scale, 32 fifth bits, 16 bytes; value (q - 16) d.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (i, &byte) in block[6..].iter().enumerate() {
        let (low, high) = five_bits(byte, fifth, i);
        out[i] = (low - 16) as f32 * d;
        out[i + 16] = (high - 16) as f32 * d;
    }
}

/// Block: f16 scale, f16 minimum, 32 fifth bits, 16 bytes; value q d + m.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (i, &byte) in block[8..].iter().enumerate() {
        let (low, high) = five_bits(byte, fifth, i);
        out[i] = low as f32 * d + m;
        out[i + 16] = high as f32 * d + m;
    }
}

/// The elements `i` and `i + 16` from their byte and the block's fifth bits.
fn five_bits(byte: u8, fifth: u32, i: usize) -> (i32, i32) {
    let low = i32::from(byte & 15) | ((fifth >> i & 1) << 4) as i32;
    let high = i32::from(byte >> 4) | ((fifth >> (i + 16) & 1) << 4) as i32;
    (low, high)
}

/// Block: f16 scale, 32 signed bytes; value q d.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (y, &q) in out.iter_mut().zip(&block[2..]) {
        *y = f32::from(q as i8) * d;
    }
}

/// Block: f16 scale, 16 bytes of indices; value table(q) d.
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (i, &byte) in block[2..].iter().enumerate() {
        out[i] = d * f32::from(IQ4_TABLE[usize::from(byte & 15)]);
        out[i + 16] = d * f32::from(IQ4_TABLE[usize::from(byte >> 4)]);
    }
}

/// Block: exponent e, 16 bytes of E2M1 codes; value code * 2^(e - 127).
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    // Half of 2^(e - 127). The two smallest are subnormal numbers, which have no exponent bits.
    let half_scale = match block[0] {
        e @ (0 | 1) => f32::from_bits(0x0020_0000 << e),
        e => f32::from_bits(u32::from(e - 1) << 23),
    };
    for (i, &byte) in block[1..].iter().enumerate() {
        out[i] = f32::from(E2M1_DOUBLED[usize::from(byte & 15)]) * half_scale;
        out[i + 16] = f32::from(E2M1_DOUBLED[usize::from(byte >> 4)]) * half_scale;
    }
}
