//! What every layer of a forward pass needs to know about the step.

use kernels::Backend;

use crate::comm::Comm;

/// A step under way on one rank.
pub(crate) struct Step<'a, B: Backend> {
    pub(crate) backend: &'a mut B,
    pub(crate) comm: &'a Comm,
    /// Tokens of the step.
    pub(crate) rows: usize,
}
