//! One layer's tensors, by role.

use kernels::Weight;

use crate::Error;
use crate::config::ModelConfig;
use crate::load::{Role, Source, TensorName};

/// The tensors of a layer, wherever it stands in the model.
pub(crate) struct LayerWeights<'a> {
    source: &'a Source,
    layer: usize,
}

impl<'a> LayerWeights<'a> {
    pub(crate) fn new(source: &'a Source, layer: usize) -> Self {
        Self { source, layer }
    }

    pub(crate) fn config(&self) -> &'a ModelConfig {
        self.source.config()
    }

    /// A matrix that shares the file's bytes where they lie together.
    pub(crate) fn matrix(&self, role: Role) -> Result<Weight, Error> {
        self.source.matrix(TensorName::Layer(self.layer, role))
    }

    /// A small tensor in f32, as the file has it.
    pub(crate) fn vector(&self, role: Role) -> Result<Vec<f32>, Error> {
        Ok(self.matrix(role)?.to_f32())
    }

    /// What a norm multiplies by.
    pub(crate) fn norm(&self, role: Role) -> Result<Vec<f32>, Error> {
        norm(self.source, TensorName::Layer(self.layer, role))
    }

    /// `-exp(A_log)` of every value head; GGUF files hold just that.
    pub(crate) fn decay(&self) -> Result<Vec<f32>, Error> {
        let mut decay = self.vector(Role::DeltaA)?;
        if self.config().a_log_is_log {
            decay.iter_mut().for_each(|a| *a = -a.exp());
        }
        Ok(decay)
    }
}

/// What a norm multiplies by: `1 + w` in checkpoints of models that mean it so.
pub(crate) fn norm(source: &Source, name: TensorName) -> Result<Vec<f32>, Error> {
    let mut weight = source.matrix(name)?.to_f32();
    if source.config().norm_plus_one {
        weight.iter_mut().for_each(|weight| *weight += 1.0);
    }
    Ok(weight)
}
