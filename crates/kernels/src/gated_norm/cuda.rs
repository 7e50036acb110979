//! The launch on a card; the token-by-token kernel of the delta rule norms by itself.

use crate::cuda::{Buffer, Cuda, Grid, Tensor};
use crate::gated_delta_rule::DeltaLayer;
use crate::gated_delta_rule::chunks::Panel;

/// Warps of a block: each has a row and head.
const WARPS: usize = 8;

/// `x = rms_norm(x, weight, eps) * silu(z)` over a panel's rows, head by head, in place.
pub(crate) fn gated_norm(
    cuda: &Cuda,
    layer: &DeltaLayer<Buffer<f32>>,
    projected: &Tensor,
    x: &Tensor,
    panel: &Panel,
) {
    let shape = &layer.shape;
    let blocks = (panel.most_rows * shape.value_heads).div_ceil(WARPS) as u32;
    cuda.launch("gated_norm", Grid::plane(blocks, panel.count as u32, 32 * WARPS as u32))
        .arg(&projected.values)
        .arg(projected.cols)
        .arg(shape.z_offset())
        .arg(&layer.norm)
        .arg(layer.eps)
        .arg(&x.values)
        .arg(shape.value_heads)
        .arg_by_value(&panel.runs)
        .overlapping()
        .run();
}
