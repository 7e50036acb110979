//! The launch on a card.

use crate::cuda::{Buffer, Cuda, Grid, Tensor};
use crate::gated_delta_rule::DeltaShape;
use crate::rms_norm::cuda::threads;

/// `x = rms_norm(x, weight, eps) * silu(z)`, head by head, in place.
pub(crate) fn gated_norm(
    cuda: &Cuda,
    shape: &DeltaShape,
    projected: &Tensor,
    weight: &Buffer<f32>,
    eps: f32,
    x: &mut Tensor,
) {
    let grid = Grid::plane(shape.value_heads as u32, cuda.rows() as u32, threads(shape.value_dim));
    cuda.launch("gated_norm", grid)
        .arg(&x.values)
        .arg(&projected.values)
        .arg(projected.cols)
        .arg(shape.z_offset())
        .arg(weight)
        .arg(eps)
        .arg(shape.value_heads)
        .arg(shape.value_dim)
        .overlapping()
        .run();
}
