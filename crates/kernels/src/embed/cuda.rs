//! The launch on a card.

use crate::cuda::{Address, Cuda, Grid, Matrix, Tensor};

/// Threads of a block, one for each eight columns.
const THREADS: usize = 128;

fn grid(rows: usize, cols: usize) -> Grid {
    Grid::plane(cols.div_ceil(8 * THREADS) as u32, rows as u32, THREADS as u32)
}

/// `out[row] = table[token of row]`.
pub(crate) fn embed(cuda: &Cuda, table: &Matrix, tokens: Address, out: &mut Tensor) {
    assert_eq!(table.cols, out.cols, "columns of an embedding");
    cuda.launch("embed", grid(cuda.rows(), table.cols))
        .arg(table.format.ggml_id())
        .arg(&table.units)
        .arg(table.padded())
        .arg(table.rows)
        .arg(table.cols)
        .arg(tokens)
        .arg(&out.values)
        // Not overlapping: launches behind it read the step's description before they wait.
        .run();
}
