//! Formats with one scale per 32 elements: the scale follows from the largest element.

use super::store_half;

/// The largest magnitude becomes 127.
pub(super) fn q8_0(values: &[f32; 32]) -> [u8; 34] {
    let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    // The elements are divided by the scale before it is rounded to a half: so does the reference.
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut block = [0; 34];
    store_half(&mut block, 0, scale);
    for (q, x) in block[2..].iter_mut().zip(values) {
        *q = (x * inverse).round() as i8 as u8;
    }
    block
}

/// The element of the largest magnitude becomes -8, the end of the range that has one more step.
pub(super) fn q4_0(values: &[f32; 32]) -> [u8; 18] {
    let largest =
        values.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    let scale = largest / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let nibble = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    let mut block = [0; 18];
    store_half(&mut block, 0, scale);
    for i in 0..16 {
        block[2 + i] = nibble(values[i]) | nibble(values[i + 16]) << 4;
    }
    block
}
