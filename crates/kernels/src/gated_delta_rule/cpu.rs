//! The recurrence on the CPU: one task a sequence and value head, tokens in order.

use super::DeltaShape;
use crate::linear::cpu::dot_f32;
use crate::rms_norm::cpu::sum_of_squares;

/// Queries and keys of one token, normalised; scratch of a task.
#[derive(Default)]
pub struct Scratch {
    q: Vec<f32>,
    k: Vec<f32>,
}

/// `log(1 + exp(x))`. Above 20 that is `x` in single precision, and `exp` would overflow later.
pub fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// One value head and one token.
///
/// `row` is the projection's row after the convolution, `state` `[value_dim, key_dim]`, `out`
/// `[value_dim]`.
pub fn gated_delta_rule(
    shape: &DeltaShape,
    head: usize,
    row: &[f32],
    decay: f32,
    dt_bias: f32,
    state: &mut [f32],
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let q_start = shape.key_head(head) * shape.key_dim;
    let k_start = shape.key_cols() + q_start;
    let v_start = 2 * shape.key_cols() + head * shape.value_dim;
    unit(&row[q_start..q_start + shape.key_dim], (shape.key_dim as f32).sqrt(), &mut scratch.q);
    unit(&row[k_start..k_start + shape.key_dim], 1.0, &mut scratch.k);
    let (q, k) = (&scratch.q[..], &scratch.k[..]);
    let v = &row[v_start..v_start + shape.value_dim];
    let b = row[shape.b_offset() + head];
    let a = row[shape.b_offset() + shape.value_heads + head];
    let beta = 1.0 / (1.0 + (-b).exp());
    let keep = (decay * softplus(a + dt_bias)).exp();
    // Decay and both reads happen in one pass over the old state:
    // o = S q with S = keep S_old + u kᵀ is keep (S_old q) + u (k·q).
    let kq = dot_f32(k, q);
    for ((v, out), state) in v.iter().zip(out).zip(state.chunks_exact_mut(shape.key_dim)) {
        let u = beta * (v - keep * dot_f32(state, k));
        *out = keep * dot_f32(state, q) + u * kq;
        for (state, k) in state.iter_mut().zip(k) {
            *state = keep * *state + u * k;
        }
    }
}

fn unit(x: &[f32], divisor: f32, out: &mut Vec<f32>) {
    let scale = 1.0 / ((sum_of_squares(x) + 1e-6).sqrt() * divisor);
    out.clear();
    out.extend(x.iter().map(|x| x * scale));
}
