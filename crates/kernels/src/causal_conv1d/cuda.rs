//! The launches on a card; the token-by-token kernel of the delta rule convolves by itself.

use super::ConvShape;
use crate::cuda::{Buffer, Cuda, Grid, State, Tensor};
use crate::gated_delta_rule::DeltaLayer;
use crate::gated_delta_rule::chunks::Panel;

/// Convolution, SiLU and norms of a panel's rows, as tiles for the chunked delta rule.
pub(crate) fn prepare(
    cuda: &Cuda,
    layer: &DeltaLayer<Buffer<f32>>,
    projected: &Tensor,
    state: &State,
    panel: &Panel,
) {
    let (shape, chunks) = (&layer.shape, &cuda.chunks);
    let heads = 2 * shape.key_heads + shape.value_heads;
    let blocks = [heads as u32, panel.most_chunks() as u32, panel.count as u32];
    cuda.launch("delta_prepare", Grid { blocks, threads: [256, 1, 1], shared: 0 })
        .arg(&projected.values)
        .arg(projected.cols)
        .arg(&layer.taps)
        .arg(&state.values)
        .arg(&chunks.queries)
        .arg(&chunks.keys)
        .arg(&chunks.values)
        .arg(shape.key_heads)
        .arg(shape.value_heads)
        .arg_by_value(&panel.runs)
        .overlapping()
        .run();
}

/// Keeps the last inputs of sequences with several rows, after everything that reads the ring.
pub(crate) fn keep(cuda: &Cuda, shape: &ConvShape, projected: &Tensor, state: &State) {
    let step = &cuda.step;
    let blocks = shape.channels.div_ceil(256) as u32;
    cuda.launch("conv_keep", Grid::plane(blocks, step.size.sequences as u32, 256))
        .arg(&projected.values)
        .arg(projected.cols)
        .arg(&state.values)
        .arg(step.first_row())
        .arg(step.seq_rows())
        .arg(step.start())
        .arg(step.slot())
        .arg(shape.channels)
        .overlapping()
        .run();
}
