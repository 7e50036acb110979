//! A mixture of experts: a feed-forward layer of which each row uses a few parts.
//!
//! Per row `x`, already normed:
//!
//! ```text
//! p = softmax(router · x)            over all experts
//! E = the top_k most probable ones   of equals, the one with the lower number
//! w = p[e] for e in E                divided by their sum if `renormalise`
//! out = sum over e in E of w[e] * expert_e(x)  +  sigmoid(g · x) * shared(x)
//! expert(x) = down · (silu(gate · x) * (up · x))
//! ```
//!
//! The shared expert is there if the model has one. Experts add up in the order of their numbers,
//! the shared one last, so a row's result does not depend on the other rows of the step.
//!
//! | tensor | shape |
//! |---|---|
//! | router | `[experts, hidden]` |
//! | gate, up of an expert | `[ffn, hidden]` each |
//! | down of an expert | `[hidden, ffn]` |
//! | the shared expert's own gate `g` | `[1, hidden]` |
//!
//! A rank that holds some of the `ffn` columns of every expert computes a part of a sum over the
//! ranks: everything behind the routing is linear in `down`. Source: Shazeer et al.,
//! "Outrageously Large Neural Networks" (2017), section 2; the shared expert is from Dai et al.,
//! "DeepSeekMoE" (2024), section 3.2.

pub mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;
mod route;

#[cfg(test)]
mod tests;

pub use route::{Chosen, Scratch as RouteScratch, route};

/// How rows find their experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoeShape {
    /// Experts in all.
    pub experts: usize,
    /// Experts of a row, at least 1 and at most all.
    pub top_k: usize,
    /// Whether the weights of a row's experts are made to add up to 1.
    pub renormalise: bool,
}

/// One feed-forward part.
pub struct Expert<M> {
    /// `[ffn, hidden]`.
    pub gate: M,
    /// `[ffn, hidden]`.
    pub up: M,
    /// `[hidden, ffn]`.
    pub down: M,
}

/// The part that every row uses.
pub struct SharedExpert<M> {
    /// How much of it a row gets, `[1, hidden]`.
    pub gate: M,
    /// The part itself; its `ffn` may differ from the others'.
    pub expert: Expert<M>,
}

/// The matrices of one mixture, `M` being a backend's.
pub struct MoeWeights<M> {
    /// `[experts, hidden]`.
    pub router: M,
    /// As many as the router has rows.
    pub experts: Vec<Expert<M>>,
    /// Beside them, if the model has it.
    pub shared: Option<SharedExpert<M>>,
}

impl<M> Expert<M> {
    /// The same part with other matrices.
    pub fn map<N>(&self, mut matrix: impl FnMut(&M) -> N) -> Expert<N> {
        let Self { gate, up, down } = self;
        Expert { gate: matrix(gate), up: matrix(up), down: matrix(down) }
    }
}

impl<M> MoeWeights<M> {
    /// The same mixture with other matrices.
    pub fn map<N>(&self, mut matrix: impl FnMut(&M) -> N) -> MoeWeights<N> {
        MoeWeights {
            router: matrix(&self.router),
            experts: self.experts.iter().map(|expert| expert.map(&mut matrix)).collect(),
            shared: self.shared.as_ref().map(|shared| SharedExpert {
                gate: matrix(&shared.gate),
                expert: shared.expert.map(&mut matrix),
            }),
        }
    }
}
