//! The feed-forward layer: `down(silu(gate(x)) * up(x))`.

use kernels::Backend;

use crate::Error;
use crate::decoder::Scratch;
use crate::linear::RowParallel;
use crate::load::Role;
use crate::shard::{Shard, cols, rows};
use crate::step::Step;
use crate::weights::LayerWeights;

/// One layer's feed-forward part, of one rank.
pub(crate) struct Mlp<B: Backend> {
    eps: f32,
    norm: B::Vector,
    gate_up: [B::Matrix; 2],
    down: RowParallel<B>,
}

impl<B: Backend> Mlp<B> {
    pub(crate) fn load(
        backend: &mut B,
        weights: &LayerWeights<'_>,
        shard: &Shard,
    ) -> Result<Self, Error> {
        let config = weights.config();
        let share = [shard.share("feed-forward columns", config.ffn)?];
        let mut part = |role| Ok::<_, Error>(backend.matrix(&rows(&weights.matrix(role)?, &share)));
        let gate_up = [part(Role::FfnGate)?, part(Role::FfnUp)?];
        let down = weights.matrix(Role::FfnDown)?;
        let down = cols(&down, &share, "blocks of the feed-forward columns")?;
        Ok(Self {
            eps: config.eps,
            norm: backend.vector(&weights.norm(Role::PostNorm)?),
            gate_up,
            down: RowParallel { matrix: backend.matrix(&down) },
        })
    }

    /// `hidden += mlp(norm(hidden))`.
    pub(crate) fn forward(&self, step: &mut Step<'_, B>, scratch: &mut Scratch<B>) {
        let Scratch { hidden, gate_up, activated, partial, .. } = scratch;
        let backend = &mut *step.backend;
        let (norm, down) = ((&self.norm, self.eps), &self.down.matrix);
        if step.comm.is_solo() {
            return backend.feed_forward(hidden, norm, &self.gate_up, down, gate_up, activated);
        }
        backend.norm_project(hidden, &self.norm, self.eps, &self.gate_up, gate_up);
        backend.swiglu(gate_up, activated);
        self.down.add_to(backend, step.comm, step.rows, activated, partial, hidden);
    }
}
