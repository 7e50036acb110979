//! The feed-forward layer of which each token uses a few parts.
//!
//! Every rank holds some columns of every expert and the whole router, so that all of them choose
//! the same experts, and one sum over the ranks ends the block (requirement 56).

use kernels::moe::{Expert, MoeShape, MoeWeights, SharedExpert};
use kernels::{Backend, Weight};

use crate::Error;
use crate::decoder::Scratch;
use crate::linear::add_sum;
use crate::load::Role;
use crate::shard::{Shard, cols, rows};
use crate::step::Step;
use crate::weights::LayerWeights;

/// One layer's mixture of experts, of one rank.
pub(crate) struct Moe<B: Backend> {
    eps: f32,
    norm: B::Vector,
    mixture: B::Mixture,
}

impl<B: Backend> Moe<B> {
    pub(crate) fn load(
        backend: &mut B,
        weights: &LayerWeights<'_>,
        shard: &Shard,
    ) -> Result<Self, Error> {
        let config = weights.config();
        let moe = config.moe.as_ref().expect("a model with such layers has their sizes");
        let experts = (0..moe.experts).map(|expert| {
            let [gate, up] = [Role::ExpertGate(expert), Role::ExpertUp(expert)];
            expert_of(weights, shard, moe.ffn, [gate, up, Role::ExpertDown(expert)])
        });
        let experts = experts.collect::<Result<_, Error>>()?;
        let shared = match moe.shared_ffn {
            Some(ffn) => {
                let roles = [Role::SharedGate, Role::SharedUp, Role::SharedDown];
                let expert = expert_of(weights, shard, ffn, roles)?;
                let gate = weights.matrix(Role::SharedMix)?;
                Some(SharedExpert { gate, expert })
            }
            None => None,
        };
        let shape = MoeShape {
            experts: moe.experts,
            top_k: moe.experts_used,
            renormalise: moe.renormalise,
        };
        let parts = MoeWeights { router: weights.matrix(Role::Router)?, experts, shared };
        Ok(Self {
            eps: config.eps,
            norm: backend.vector(&weights.norm(Role::PostNorm)?),
            mixture: backend.mixture(&shape, &parts),
        })
    }

    /// `hidden += moe(norm(hidden))`.
    pub(crate) fn forward(&self, step: &mut Step<'_, B>, scratch: &mut Scratch<B>) {
        let Scratch { hidden, partial, .. } = scratch;
        let backend = &mut *step.backend;
        backend.moe(&self.mixture, hidden, (&self.norm, self.eps), partial);
        add_sum(backend, step.comm, step.rows, partial, hidden);
    }
}

/// A rank's columns of an expert of width `ffn`; `roles` are its gate, up and down.
fn expert_of(
    weights: &LayerWeights<'_>,
    shard: &Shard,
    ffn: usize,
    [gate, up, down]: [Role; 3],
) -> Result<Expert<Weight>, Error> {
    let share = [shard.share("columns of an expert", ffn)?];
    let part = |role| Ok::<_, Error>(rows(&weights.matrix(role)?, &share));
    let (gate, up) = (part(gate)?, part(up)?);
    let down = cols(&weights.matrix(down)?, &share, "blocks of the columns of an expert")?;
    Ok(Expert { gate, up, down })
}
