//! The launch on a card.

use crate::cuda::{Address, Cuda, Grid, Matrix, Tensor};

/// Threads of a block, one a column.
const THREADS: u32 = 256;

fn grid(rows: usize, cols: usize) -> Grid {
    Grid::plane(cols.div_ceil(THREADS as usize) as u32, rows as u32, THREADS)
}

/// `out[row] = table[token of row]`.
pub(crate) fn embed(cuda: &Cuda, table: &Matrix, tokens: Address, out: &mut Tensor) {
    assert_eq!(table.cols, out.cols, "columns of an embedding");
    cuda.launch("embed", grid(cuda.rows(), table.cols))
        .arg(&table.blocks)
        .arg(tokens)
        .arg(table.ty.ggml_id())
        .arg(table.ty.block_elements())
        .arg(table.ty.block_bytes())
        .arg(table.row_bytes() as i64)
        .arg(table.rows)
        .arg(table.cols)
        .arg(&out.values)
        .overlapping()
        .run();
}
