//! The launch on a card.

use super::ConvShape;
use crate::cuda::{Buffer, Cuda, Grid, State, Tensor};

/// Taps that the plain kernel has registers for.
const MOST_TAPS: usize = 8;

/// Convolution and SiLU over the first `channels` columns, in place.
pub(crate) fn causal_conv1d(
    cuda: &Cuda,
    shape: &ConvShape,
    x: &mut Tensor,
    taps: &Buffer<f32>,
    state: &mut State,
) {
    assert!(shape.taps <= MOST_TAPS, "a convolution of {} taps", shape.taps);
    let step = &cuda.step;
    let blocks = shape.channels.div_ceil(128) as u32;
    cuda.launch("causal_conv1d_plain", Grid::plane(blocks, step.size.sequences as u32, 128))
        .arg(&x.values)
        .arg(x.cols)
        .arg(shape.channels)
        .arg(shape.taps)
        .arg(taps)
        .arg(&state.values)
        .arg(step.first_row())
        .arg(step.seq_rows())
        .arg(step.start())
        .arg(step.slot())
        .overlapping()
        .run();
}
