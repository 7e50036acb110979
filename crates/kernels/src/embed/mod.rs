//! Embedding: row `token` of a table `[vocab, hidden]`, whatever its format.

use crate::cpu::parts::Parts;
use crate::cpu::pool::Pool;
use crate::linear::cpu::Matrix;

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

/// `out[row] = table[tokens[row]]`, and zeros where the table has no such row: another rank holds
/// it. `out` is `[rows, hidden]`.
pub fn embed(pool: &Pool, table: &Matrix, tokens: &[u32], out: &mut [f32]) {
    let rows = Parts::new(out, table.cols());
    pool.run_in_runs(tokens.len(), |at| {
        // SAFETY: each task has its own row.
        let out = unsafe { rows.part(at) };
        match tokens[at] as usize {
            row if row < table.rows() => table.decode_row(row, out),
            _ => out.fill(0.0),
        }
    });
}
