//! The order in which weights lie on a card; `unit.cuh` says it in full.

use crate::quant::WeightType;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// Columns are padded to a multiple of this.
pub(super) const PADDED_COLS: usize = 256;

/// The format that weights of a type have on a card: their own, or one that holds the same numbers.
///
/// Only `IQ4_XS` and the formats that become halves are rounded, to 11 bits, far below what their
/// own 2 to 5 bits lost. `F32` is kept as a sum of two bfloat16, that is 16 bits.
pub(super) fn format_of(ty: WeightType) -> WeightType {
    use WeightType::{
        BF16, F16, F32, IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K,
        Q6_K, Q8_0,
    };
    match ty {
        F32 | F16 | BF16 | Q8_0 | Q4_K | Q5_K | Q6_K => ty,
        Q4_0 | Q5_0 | IQ4_NL | IQ4_XS => Q8_0,
        Q3_K => Q6_K,
        Q4_1 | Q5_1 | Q2_K => F16,
        MXFP4 => BF16,
    }
}

/// Columns of a unit.
pub(super) fn unit_cols(format: WeightType) -> usize {
    match format {
        WeightType::Q4_K | WeightType::Q5_K | WeightType::Q6_K => 256,
        WeightType::Q8_0 => 128,
        WeightType::F32 => 32,
        _ => 64,
    }
}

/// Bytes of a unit.
pub(super) fn unit_bytes(format: WeightType) -> usize {
    match format {
        WeightType::Q4_K => 2368,
        WeightType::Q5_K => 2880,
        WeightType::Q6_K => 3360,
        WeightType::Q8_0 => 2176,
        _ => 2048,
    }
}

/// Columns with the zeros that fill the last units up.
pub(super) fn padded(cols: usize) -> usize {
    cols.next_multiple_of(PADDED_COLS)
}

/// Tiles of so many rows.
pub(super) fn tiles(rows: usize) -> usize {
    rows.div_ceil(TILE_ROWS)
}

/// Bytes of a tile.
pub(super) fn tile_bytes(format: WeightType, cols: usize) -> usize {
    padded(cols) / unit_cols(format) * unit_bytes(format)
}

/// Bytes that a matrix of weights of type `ty` takes on a card.
pub(crate) fn matrix_bytes(ty: WeightType, rows: usize, cols: usize) -> usize {
    tiles(rows) * tile_bytes(format_of(ty), cols)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory is what decoding waits for: no format that is kept grows by more than 3 %.
    #[test]
    fn weights_take_what_the_file_takes() {
        for ty in WeightType::all().filter(|ty| format_of(*ty) == *ty) {
            let file = ty.bytes(4096 * 12288).expect("whole blocks");
            let card = matrix_bytes(ty, 4096, 12288) as u64;
            assert!(card >= file && card * 100 <= file * 103, "{ty}: {card} for {file}");
        }
    }

    #[test]
    fn edges_are_padded() {
        assert_eq!(matrix_bytes(WeightType::BF16, 17, 300), 2 * 16 * 512 * 2);
        for ty in WeightType::all() {
            assert_eq!(unit_bytes(format_of(ty)) % 16, 0, "{ty}: copies are of 16 bytes");
        }
    }
}
