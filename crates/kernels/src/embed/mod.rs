//! Embedding: row `token` of a table `[vocab, hidden]`, whatever its format.

use crate::linear::cpu::Matrix;

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

/// `out[row] = table[tokens[row]]`; `out` is `[rows, hidden]`.
///
/// # Panics
/// When a token is not below the table's rows: callers check ids before they reach a device.
pub fn embed(table: &Matrix, tokens: &[u32], out: &mut [f32]) {
    for (token, out) in tokens.iter().zip(out.chunks_exact_mut(table.cols())) {
        table.decode_row(*token as usize, out);
    }
}
