//! A mixture of experts on the CPU: expert by expert, each over the rows that chose it.

use super::{Expert, MoeShape, MoeWeights, route};
use crate::cpu::parts::Parts;
use crate::cpu::pool::Pool;
use crate::linear::cpu::{Inputs, Matrix, Rounded, linear};
use crate::swiglu::swiglu;

/// A row that an expert works on.
#[derive(Clone, Copy)]
struct Share {
    expert: usize,
    row: usize,
    weight: f32,
}

/// Memory of a mixture, kept from one to the next.
#[derive(Default)]
pub struct Work {
    /// The router's, or the shared expert's gates.
    logits: Vec<f32>,
    route: route::Scratch,
    shares: Vec<Share>,
    gathered: Vec<f32>,
    expert: ExpertWork,
}

/// `[rows, 2 ffn]`, `[rows, ffn]` and `[rows, hidden]` of an expert.
#[derive(Default)]
struct ExpertWork {
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    made: Vec<f32>,
}

/// The first `len` elements, whatever they are; the memory only grows.
fn room(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}

/// Overwrites `out` with the mixture of `x`, both `[rows, hidden]`.
pub fn moe(
    pool: &Pool,
    shape: &MoeShape,
    weights: &MoeWeights<Matrix>,
    x: &[f32],
    out: &mut [f32],
    rounded: &mut Rounded,
    work: &mut Work,
) {
    let router = &weights.router;
    assert_eq!((router.rows(), weights.experts.len()), (shape.experts, shape.experts), "experts");
    let Work { logits, route, shares, gathered, expert } = work;
    let hidden = router.cols();
    let rows = x.len() / hidden;
    let logits_of = room(logits, rows * shape.experts);
    project(pool, &[router], x, hidden, logits_of, rounded);
    shares.clear();
    for (row, logits) in logits_of.chunks_exact(shape.experts).enumerate() {
        let chosen = route::route(shape, logits, route);
        shares.extend(chosen.map(|it| Share { expert: it.expert, row, weight: it.weight }));
    }
    shares.sort_unstable_by_key(|share| (share.expert, share.row));
    out.fill(0.0);
    for shares in shares.chunk_by(|a, b| a.expert == b.expert) {
        gathered.clear();
        for share in shares {
            gathered.extend_from_slice(&x[share.row * hidden..(share.row + 1) * hidden]);
        }
        add_expert(
            pool,
            &weights.experts[shares[0].expert],
            gathered,
            shares,
            out,
            rounded,
            expert,
        );
    }
    if let Some(shared) = &weights.shared {
        let gates = room(logits, rows);
        project(pool, &[&shared.gate], x, hidden, gates, rounded);
        shares.clear();
        let weight = |gate: &f32| 1.0 / (1.0 + (-gate).exp());
        let gates = gates.iter().enumerate();
        shares.extend(gates.map(|(row, gate)| Share { expert: 0, row, weight: weight(gate) }));
        add_expert(pool, &shared.expert, x, shares, out, rounded, expert);
    }
}

/// Adds what an expert makes of `x` to the rows of `out` that `x` was taken from.
fn add_expert(
    pool: &Pool,
    expert: &Expert<Matrix>,
    x: &[f32],
    shares: &[Share],
    out: &mut [f32],
    rounded: &mut Rounded,
    work: &mut ExpertWork,
) {
    let (hidden, ffn) = (expert.down.rows(), expert.down.cols());
    let gate_up = room(&mut work.gate_up, shares.len() * 2 * ffn);
    project(pool, &[&expert.gate, &expert.up], x, hidden, gate_up, rounded);
    let activated = room(&mut work.activated, shares.len() * ffn);
    let parts = Parts::new(activated, ffn);
    pool.run_in_runs(shares.len(), |at| {
        // SAFETY: each task has its own row.
        swiglu(&gate_up[at * 2 * ffn..(at + 1) * 2 * ffn], unsafe { parts.part(at) });
    });
    let made = room(&mut work.made, shares.len() * hidden);
    project(pool, &[&expert.down], activated, ffn, made, rounded);
    for (share, made) in shares.iter().zip(made.chunks_exact(hidden)) {
        let out = &mut out[share.row * hidden..(share.row + 1) * hidden];
        for (out, made) in out.iter_mut().zip(made) {
            *out += share.weight * made;
        }
    }
}

/// `out = x · [parts]ᵀ`, the parts side by side; `x` is `[rows, cols]`.
fn project(
    pool: &Pool,
    parts: &[&Matrix],
    x: &[f32],
    cols: usize,
    out: &mut [f32],
    rounded: &mut Rounded,
) {
    let inputs = Inputs::new(pool, x, cols, parts, rounded);
    let stride = parts.iter().map(|part| part.rows()).sum();
    linear(pool, &inputs, parts, out, stride, false);
}
