//! What tests that need a card begin with.

use super::{Buffer, Context, Cuda, Element, StepCapacity, Tensor};
use crate::backend::{Backend, SequenceRows, StepInputs};

/// Sizes that every test fits.
pub(crate) const CAPACITY: StepCapacity = StepCapacity { rows: 1024, sequences: 64, blocks: 1024 };

/// A backend that records nothing, or `None` where there is no card, which is said loudly: such a
/// test has shown nothing. With `REQUIRE_GPU` set it is a failure.
pub(crate) fn cuda() -> Option<Cuda> {
    match Context::open(0) {
        Ok(context) => Some(Cuda::new(&context, CAPACITY).without_graphs()),
        Err(fault) if std::env::var_os("REQUIRE_GPU").is_some() => panic!("{fault}"),
        Err(fault) => {
            eprintln!("SKIPPED, nothing was tested: {fault}");
            None
        }
    }
}

/// Memory with these values.
pub(crate) fn buffer<T: Element>(cuda: &Cuda, values: &[T]) -> Buffer<T> {
    Buffer::of(&cuda.context, "a test", values)
}

/// Activations with these values.
pub(crate) fn tensor(cuda: &Cuda, cols: usize, values: &[f32]) -> Tensor {
    assert!(values.len().is_multiple_of(cols));
    Tensor { values: buffer(cuda, values), cols }
}

/// Activations in which every unwritten element is NaN.
pub(crate) fn poisoned(cuda: &Cuda, rows: usize, cols: usize) -> Tensor {
    tensor(cuda, cols, &vec![f32::NAN; rows * cols])
}

/// What a tensor holds; fails the test if the device did.
pub(crate) fn values(cuda: &Cuda, tensor: &Tensor) -> Vec<f32> {
    let values = tensor.values.get(0..tensor.values.len());
    assert_eq!(cuda.fault(), None);
    values
}

/// A step of sequences with `(rows, start)` each, whose blocks and slots lie apart and in no order.
/// Tokens count up from 0. The last row of each sequence wants logits.
pub(crate) fn step(sequences: &[(usize, usize)], block_size: usize) -> StepInputs {
    let mut inputs = StepInputs::default();
    for (at, &(rows, start)) in sequences.iter().enumerate() {
        let first_row = inputs.tokens.len();
        inputs.tokens.extend((first_row..first_row + rows).map(|token| token as u32));
        let blocks = (start + rows).div_ceil(block_size) as u32;
        let count = sequences.len() as u32;
        let blocks = (0..blocks).rev().map(|block| block * count + at as u32).collect();
        let slot = sequences.len() - 1 - at;
        inputs.sequences.push(SequenceRows { first_row, rows, start, blocks, slot });
        inputs.logit_rows.push(first_row + rows - 1);
    }
    inputs
}
