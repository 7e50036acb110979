//! Linear layers on a card.

use std::sync::Arc;

use crate::cuda::{Buffer, Context, Cuda, Grid, Tensor};
use crate::quant::WeightType;
use crate::weight::Weight;

/// A weight matrix on a card.
pub struct Matrix {
    /// The blocks' format.
    pub ty: WeightType,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// The blocks in the file's order.
    pub(crate) blocks: Buffer<u8>,
}

impl Matrix {
    /// Bytes that a matrix takes.
    pub(crate) fn bytes_of(ty: WeightType, rows: usize, cols: usize) -> u64 {
        (rows * (cols / ty.block_elements()) * ty.block_bytes()) as u64
    }

    /// Takes a matrix over.
    pub(crate) fn new(context: &Arc<Context>, weight: &Weight) -> Self {
        let blocks = Buffer::of(context, "weights", &weight.bytes);
        Self { ty: weight.ty, rows: weight.rows, cols: weight.cols, blocks }
    }

    /// Bytes of one row as the file has it.
    pub(crate) fn row_bytes(&self) -> usize {
        self.cols / self.ty.block_elements() * self.ty.block_bytes()
    }
}

/// Which columns of a wider tensor a product fills, and whether it adds to what is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The first of `matrix.rows` columns.
    pub(crate) first_col: usize,
    /// Whether the product is added.
    pub(crate) add: bool,
}

/// Warps of a block, each with one weight row.
const WARPS: u32 = 8;
/// Input rows that a block of the plain kernel takes at once.
const ROWS: usize = 8;

fn grid(outputs: usize, rows: usize) -> Grid {
    let y = rows.div_ceil(ROWS).min(64) as u32;
    Grid::plane(outputs.div_ceil(WARPS as usize) as u32, y, 32 * WARPS)
}

/// `out[.., place] (+)= x · matrixᵀ` for the first `rows` rows of `x`, which are `[rows, cols]`.
pub(crate) fn linear(
    cuda: &Cuda,
    x: &Buffer<f32>,
    matrix: &Matrix,
    rows: usize,
    out: &mut Tensor,
    place: Place,
) {
    assert!(place.first_col + matrix.rows <= out.cols, "outputs of a linear layer");
    cuda.launch("linear_plain", grid(matrix.rows, rows))
        .arg(&matrix.blocks)
        .arg(matrix.ty.ggml_id())
        .arg(matrix.ty.block_elements())
        .arg(matrix.ty.block_bytes())
        .arg(matrix.row_bytes() as i64)
        .arg(matrix.rows)
        .arg(matrix.cols)
        .arg(x)
        .arg(rows)
        .arg(&out.values)
        .arg(out.cols)
        .arg(place.first_col)
        .arg(place.add)
        .overlapping()
        .run();
}

/// `residual += x` over the step's rows.
pub(crate) fn add(cuda: &Cuda, x: &Tensor, residual: &mut Tensor) {
    assert_eq!(x.cols, residual.cols, "columns of a sum");
    let items = cuda.rows() * x.cols;
    cuda.launch("add_rows", Grid::over(items, 256))
        .arg(&x.values)
        .arg(&residual.values)
        .arg(items as i64)
        .overlapping()
        .run();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_covers_outputs_and_rows() {
        assert_eq!(grid(9, 1).blocks, [2, 1, 1]);
        assert_eq!(grid(8, 9).blocks, [1, 2, 1]);
        assert_eq!(grid(8, 4096).blocks[1], 64, "blocks walk over the rest");
    }
}
