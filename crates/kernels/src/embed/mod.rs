//! Embedding: row `token` of a table `[vocab, hidden]`, whatever its format.

use crate::linear::cpu::Matrix;

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

/// `out[row] = table[tokens[row]]`, and zeros where the table has no such row: another rank holds
/// it. `out` is `[rows, hidden]`.
pub fn embed(table: &Matrix, tokens: &[u32], out: &mut [f32]) {
    for (token, out) in tokens.iter().zip(out.chunks_exact_mut(table.cols())) {
        match *token as usize {
            row if row < table.rows() => table.decode_row(row, out),
            _ => out.fill(0.0),
        }
    }
}
