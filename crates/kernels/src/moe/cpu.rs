//! A mixture of experts on the CPU: expert by expert, each over the rows that chose it.

use super::{Expert, MoeShape, MoeWeights, route};
use crate::cpu::pool::Pool;
use crate::linear::cpu::{Inputs, Matrix, linear};
use crate::swiglu::swiglu;

/// A row that an expert works on.
#[derive(Clone, Copy)]
struct Share {
    row: usize,
    weight: f32,
}

/// Overwrites `out` with the mixture of `x`, both `[rows, hidden]`.
pub fn moe(
    pool: &Pool,
    shape: &MoeShape,
    weights: &MoeWeights<Matrix>,
    x: &[f32],
    out: &mut [f32],
) {
    let router = &weights.router;
    assert_eq!((router.rows(), weights.experts.len()), (shape.experts, shape.experts), "experts");
    let hidden = router.cols();
    let mut shares: Vec<Vec<Share>> = vec![Vec::new(); shape.experts];
    let logits = project(pool, router, x);
    for (row, logits) in logits.chunks_exact(shape.experts).enumerate() {
        for chosen in route(shape, logits) {
            shares[chosen.expert].push(Share { row, weight: chosen.weight });
        }
    }
    out.fill(0.0);
    let mut gathered = Vec::new();
    for (expert, shares) in weights.experts.iter().zip(&shares).filter(|(_, s)| !s.is_empty()) {
        gathered.clear();
        for share in shares {
            gathered.extend_from_slice(&x[share.row * hidden..(share.row + 1) * hidden]);
        }
        add_expert(pool, expert, &gathered, shares, out);
    }
    if let Some(shared) = &weights.shared {
        let gates = project(pool, &shared.gate, x);
        let weight = |gate: &f32| 1.0 / (1.0 + (-gate).exp());
        let shares = gates.iter().enumerate();
        let shares: Vec<Share> =
            shares.map(|(row, gate)| Share { row, weight: weight(gate) }).collect();
        add_expert(pool, &shared.expert, x, &shares, out);
    }
}

/// Adds what an expert makes of `x` to the rows of `out` that `x` was taken from.
fn add_expert(pool: &Pool, expert: &Expert<Matrix>, x: &[f32], shares: &[Share], out: &mut [f32]) {
    let (hidden, ffn) = (expert.down.rows(), expert.down.cols());
    let mut gate_up = vec![0.0; shares.len() * 2 * ffn];
    let inputs = Inputs::new(pool, x, hidden, &[&expert.gate, &expert.up]);
    linear(pool, &inputs, &expert.gate, &mut gate_up, 2 * ffn, 0, false);
    linear(pool, &inputs, &expert.up, &mut gate_up, 2 * ffn, ffn, false);
    let mut activated = vec![0.0; shares.len() * ffn];
    for (out, gate_up) in activated.chunks_exact_mut(ffn).zip(gate_up.chunks_exact(2 * ffn)) {
        swiglu(gate_up, out);
    }
    let made = project(pool, &expert.down, &activated);
    for (share, made) in shares.iter().zip(made.chunks_exact(hidden)) {
        let out = &mut out[share.row * hidden..(share.row + 1) * hidden];
        for (out, made) in out.iter_mut().zip(made) {
            *out += share.weight * made;
        }
    }
}

/// `x · matrixᵀ`.
fn project(pool: &Pool, matrix: &Matrix, x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len() / matrix.cols() * matrix.rows()];
    let inputs = Inputs::new(pool, x, matrix.cols(), &[matrix]);
    linear(pool, &inputs, matrix, &mut out, matrix.rows(), 0, false);
    out
}
