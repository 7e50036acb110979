//! Linear layers of a rank. Parallelism lives here and in no model file.
//!
//! A column-parallel layer holds some of the outputs and needs no others: its shares are cut when
//! it is loaded (see `shard`). A row-parallel layer holds some of the inputs, so its result is a
//! part of a sum over the ranks. Embedding and output head are in `vocabulary`.

use kernels::Backend;

use crate::comm::Comm;

/// A layer whose inputs are spread over the ranks and whose output joins the residual stream.
pub(crate) struct RowParallel<B: Backend> {
    pub(crate) matrix: B::Matrix,
}

impl<B: Backend> RowParallel<B> {
    /// `residual += sum over ranks of x · matrixᵀ`; `partial` is scratch as wide as `residual`.
    pub(crate) fn add_to(
        &self,
        backend: &mut B,
        comm: &Comm,
        rows: usize,
        x: &B::Tensor,
        partial: &mut B::Tensor,
        residual: &mut B::Tensor,
    ) {
        if comm.is_solo() {
            backend.project_add(x, &self.matrix, residual);
            return;
        }
        backend.project(x, &self.matrix, partial);
        add_sum(backend, comm, rows, partial, residual);
    }
}

/// `residual += sum over ranks of partial`, of which `partial` keeps the sum.
pub(crate) fn add_sum<B: Backend>(
    backend: &mut B,
    comm: &Comm,
    rows: usize,
    partial: &mut B::Tensor,
    residual: &mut B::Tensor,
) {
    all_reduce(backend, comm, rows, partial);
    backend.add(partial, residual);
}

/// Replaces the step's rows by their sum over the ranks.
pub(crate) fn all_reduce<B: Backend>(
    backend: &mut B,
    comm: &Comm,
    rows: usize,
    tensor: &mut B::Tensor,
) {
    if !comm.is_solo() {
        let mut values = backend.read(tensor, rows);
        comm.all_reduce(&mut values);
        backend.write(tensor, &values);
    }
}
