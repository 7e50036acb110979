//! Formats with super-blocks of 256 elements.
//!
//! Each group gets its best scale; the scales are then quantised themselves; and the elements are
//! rounded last, against the scales that a reader will really see.

use super::search::{Affine, affine, affine_elements, symmetric, symmetric_elements};
use super::store_half;

/// Scale and minimum of 6 bits for each of eight groups of 32, and the elements to go with them.
struct Groups {
    scales: [u8; 8],
    minimums: [u8; 8],
    /// One element per byte.
    elements: [u8; 256],
}

/// Quantises to `steps` + 1 levels; stores the two super-scales in the first four bytes of `block`.
fn affine_groups(values: &[f32; 256], steps: f32, block: &mut [u8]) -> Groups {
    let mut fits = [Affine::default(); 8];
    for (fit, group) in fits.iter_mut().zip(values.as_chunks::<32>().0) {
        *fit = affine(group, steps);
    }
    let largest = |of: fn(&Affine) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let d = store_half(block, 0, largest(|fit| fit.scale) / 63.0);
    let dmin = store_half(block, 2, largest(|fit| fit.minimum) / 63.0);
    let six_bits = |x: f32, unit: f32| match unit {
        0.0 => 0,
        unit => (x / unit).round().clamp(0.0, 63.0) as u8,
    };
    let mut groups = Groups { scales: [0; 8], minimums: [0; 8], elements: [0; 256] };
    for (i, (group, fit)) in values.as_chunks::<32>().0.iter().zip(fits).enumerate() {
        let (scale, minimum) = (six_bits(fit.scale, d), six_bits(fit.minimum, dmin));
        (groups.scales[i], groups.minimums[i]) = (scale, minimum);
        let seen = Affine { scale: d * f32::from(scale), minimum: dmin * f32::from(minimum) };
        let elements = affine_elements(group, seen, steps);
        groups.elements[32 * i..][..32].copy_from_slice(&elements);
    }
    groups
}

/// Eight scales and eight minimums of 6 bits in 12 bytes.
fn pack_six_bits(groups: &Groups) -> [u8; 12] {
    let mut packed = [0; 12];
    for i in 0..4 {
        let (scale, minimum) = (groups.scales[i + 4], groups.minimums[i + 4]);
        packed[i] = groups.scales[i] | (scale >> 4) << 6;
        packed[i + 4] = groups.minimums[i] | (minimum >> 4) << 6;
        packed[i + 8] = (scale & 15) | (minimum & 15) << 4;
    }
    packed
}

/// Low nibbles of 256 elements: of each 64 the first 32 in low nibbles, the others in high ones.
fn pack_nibbles(elements: &[u8; 256], out: &mut [u8]) {
    for (bytes, run) in out.chunks_exact_mut(32).zip(elements.chunks_exact(64)) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (run[i] & 15) | (run[i + 32] & 15) << 4;
        }
    }
}

pub(super) fn q4_k(values: &[f32; 256]) -> [u8; 144] {
    let mut block = [0; 144];
    let groups = affine_groups(values, 15.0, &mut block);
    block[4..16].copy_from_slice(&pack_six_bits(&groups));
    pack_nibbles(&groups.elements, &mut block[16..]);
    block
}

pub(super) fn q5_k(values: &[f32; 256]) -> [u8; 176] {
    let mut block = [0; 176];
    let groups = affine_groups(values, 31.0, &mut block);
    block[4..16].copy_from_slice(&pack_six_bits(&groups));
    for (i, &q) in groups.elements.iter().enumerate() {
        block[16 + i % 32] |= (q >> 4) << (i / 32);
    }
    pack_nibbles(&groups.elements, &mut block[48..]);
    block
}

pub(super) fn q6_k(values: &[f32; 256]) -> [u8; 210] {
    let mut block = [0; 210];
    let mut scales = [0.0_f32; 16];
    for (scale, group) in scales.iter_mut().zip(values.as_chunks::<16>().0) {
        *scale = symmetric(group, 32.0);
    }
    let largest =
        scales.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    // The largest scale becomes -128, so the other signs keep their room up to 127.
    let d = store_half(&mut block, 208, largest / -128.0);
    if d == 0.0 {
        // Zero weights: q = 0 is stored as 32, and any value times a scale of zero is zero.
        return block;
    }
    for (group, values) in values.as_chunks::<16>().0.iter().enumerate() {
        let scale = (scales[group] / d).round().clamp(-128.0, 127.0);
        block[192 + group] = scale as i8 as u8;
        let (half, run, part) = (group / 8, group % 8 / 2, group % 2);
        for (i, q) in symmetric_elements(values, d * scale, 32.0).into_iter().enumerate() {
            block[64 * half + 32 * (run % 2) + 16 * part + i] |= (q & 15) << (4 * (run / 2));
            block[128 + 32 * half + 16 * part + i] |= (q >> 4) << (2 * run);
        }
    }
    block
}
