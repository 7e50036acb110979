//! Where layers get their tensors from, by role instead of by name.

use kernels::Weight;

use crate::Error;
use crate::config::ModelConfig;

pub use crate::names::Role;

/// A model's tensors.
pub trait Weights {
    /// The configuration that the tensors belong to.
    fn config(&self) -> &ModelConfig;

    /// A matrix, checked against the configuration; it shares the file's bytes.
    fn matrix(&self, layer: usize, role: Role) -> Result<Weight, Error>;

    /// A small tensor in f32, as the file has it.
    fn vector(&self, layer: usize, role: Role) -> Result<Vec<f32>, Error>;

    /// What a norm multiplies by: `1 + w` in checkpoints of models that mean it so.
    fn norm(&self, layer: usize, role: Role) -> Result<Vec<f32>, Error> {
        let mut weight = self.vector(layer, role)?;
        if self.config().norm_plus_one {
            weight.iter_mut().for_each(|weight| *weight += 1.0);
        }
        Ok(weight)
    }

    /// `-exp(A_log)` of every value head; GGUF files hold just that.
    fn decay(&self, layer: usize) -> Result<Vec<f32>, Error> {
        let mut decay = self.vector(layer, Role::DeltaA)?;
        if self.config().a_log_is_log {
            decay.iter_mut().for_each(|a| *a = -a.exp());
        }
        Ok(decay)
    }
}
