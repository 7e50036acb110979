//! The launch on a card.

use super::{DeltaShape, HeadOrder};
use crate::cuda::{Buffer, Cuda, Grid, State, Tensor};
use crate::rms_norm::cuda::threads;

/// The grid of the plain kernel: a head's state, a query and a key lie in shared memory.
fn grid(shape: &DeltaShape, sequences: usize) -> Grid {
    let floats = shape.value_dim * (shape.key_dim + 1) + 2 * shape.key_dim;
    Grid::plane(shape.value_heads as u32, sequences as u32, threads(shape.value_dim))
        .with_shared(4 * floats as u32)
}

/// The gated delta rule over the step's rows.
pub(crate) fn gated_delta_rule(
    cuda: &Cuda,
    shape: &DeltaShape,
    projected: &Tensor,
    decay: &Buffer<f32>,
    dt_bias: &Buffer<f32>,
    state: &mut State,
    out: &mut Tensor,
) {
    assert_eq!((state.elements, out.cols), (shape.state_elements(), shape.value_cols()));
    let step = &cuda.step;
    cuda.launch("gated_delta_rule_plain", grid(shape, step.size.sequences))
        .arg(&projected.values)
        .arg(projected.cols)
        .arg(decay)
        .arg(dt_bias)
        .arg(&state.values)
        .arg(shape.key_heads)
        .arg(shape.value_heads)
        .arg(shape.key_dim)
        .arg(shape.value_dim)
        .arg(shape.order == HeadOrder::Tiled)
        .arg(step.first_row())
        .arg(step.seq_rows())
        .arg(step.start())
        .arg(step.slot())
        .arg(&out.values)
        .overlapping()
        .run();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 128 by 128 floats must fit the 99 KB that the smallest card allows.
    #[test]
    fn a_state_fits_shared_memory() {
        let shape = DeltaShape {
            key_heads: 16,
            value_heads: 48,
            key_dim: 128,
            value_dim: 128,
            order: HeadOrder::Tiled,
        };
        let grid = grid(&shape, 3);
        assert_eq!((grid.blocks, grid.threads[0]), ([48, 3, 1], 128));
        assert!(grid.shared <= 99 << 10, "{}", grid.shared);
    }
}
