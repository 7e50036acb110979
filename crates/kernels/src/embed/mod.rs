//! Embedding: row `token` of a table `[vocab, hidden]`, whatever its format.

use crate::cpu::parts::Parts;
use crate::cpu::pool::Pool;
use crate::linear::cpu::Matrix;

#[cfg(test)]
mod tests;

/// `out[row] = table[tokens[row]]`; `out` is `[rows, hidden]`.
///
/// # Panics
/// When a token is not below the table's rows: callers check ids before they reach a device.
pub fn embed(pool: &Pool, table: &Matrix, tokens: &[u32], out: &mut [f32]) {
    let rows = Parts::new(out, table.cols());
    pool.run_in_runs(tokens.len(), |at| {
        // SAFETY: each task has its own row.
        table.decode_row(tokens[at] as usize, unsafe { rows.part(at) });
    });
}
