//! The vocabulary, spread over the ranks: embedding and output head.
//!
//! Each rank holds the rows of some ids. An embedding is a sum over the ranks of which all but one
//! add zero; logits are gathered.

use std::ops::Range;

use kernels::{Backend, StepInputs};

use crate::Error;
use crate::comm::Comm;
use crate::linear::all_reduce;
use crate::load::{Source, TensorName};
use crate::shard::{Shard, rows};

/// A matrix with a row for each id, of which a rank holds some.
pub(crate) struct VocabularyParallel<B: Backend> {
    ids: Range<usize>,
    matrix: B::Matrix,
}

impl<B: Backend> VocabularyParallel<B> {
    pub(crate) fn load(
        backend: &mut B,
        source: &Source,
        name: TensorName,
        shard: &Shard,
    ) -> Result<Self, Error> {
        let whole = source.matrix(name)?;
        let ids = shard.split(whole.rows);
        let matrix = backend.matrix(&rows(&whole, std::slice::from_ref(&ids)));
        Ok(Self { ids, matrix })
    }

    /// The step as this rank's rows see it: ids count from its first; those of other ranks lie
    /// beyond its last, where a table gives zeros.
    pub(crate) fn localised(&self, mut inputs: StepInputs) -> StepInputs {
        for token in &mut inputs.tokens {
            let id = *token as usize;
            *token = if self.ids.contains(&id) { (id - self.ids.start) as u32 } else { u32::MAX };
        }
        inputs
    }

    /// `out[row] = embedding of the row's token`, of a step that is [`Self::localised`].
    pub(crate) fn embed(&self, backend: &mut B, comm: &Comm, rows: usize, out: &mut B::Tensor) {
        backend.embed(&self.matrix, out);
        all_reduce(backend, comm, rows, out);
    }

    /// `logits[i] = rms_norm(x[logit row i]) · headᵀ` over all ids, on every rank.
    pub(crate) fn logits(
        &self,
        backend: &mut B,
        comm: &Comm,
        rows: usize,
        x: &B::Tensor,
        (norm, eps): (&B::Vector, f32),
        (part, logits): (&mut B::Tensor, &mut B::Tensor),
    ) {
        if comm.is_solo() {
            backend.logits(x, norm, eps, &self.matrix, logits);
            return;
        }
        backend.logits(x, norm, eps, &self.matrix, part);
        let parts = comm.all_gather(backend.read(part, rows));
        backend.write(logits, &side_by_side(&parts, rows));
    }
}

/// Parts `[rows, own columns]` as one matrix `[rows, all columns]`.
fn side_by_side(parts: &[Vec<f32>], rows: usize) -> Vec<f32> {
    let row = |part: &[f32], row: usize| {
        let cols = part.len() / rows;
        row * cols..(row + 1) * cols
    };
    (0..rows)
        .flat_map(|at| parts.iter().flat_map(move |part| part[row(part, at)].iter().copied()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_unequal_width_lie_side_by_side() {
        let parts = [vec![1.0, 2.0, 5.0, 6.0], vec![3.0, 7.0]];
        assert_eq!(side_by_side(&parts, 2), [1.0, 2.0, 3.0, 5.0, 6.0, 7.0]);
        assert!(side_by_side(&[vec![], vec![]], 0).is_empty());
    }
}
