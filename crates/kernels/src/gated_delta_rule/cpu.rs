//! The recurrence on the CPU: one task a sequence and value head, tokens in order.

use crate::cpu::vector::dot;
use crate::cpu::widest::{fused, widest};
use crate::rms_norm::cpu::sum_of_squares;

/// One token of one key head.
#[derive(Default)]
pub struct Scratch {
    /// Normalised.
    q: Vec<f32>,
    k: Vec<f32>,
    /// Their product.
    kq: f32,
    /// What a value head writes.
    u: Vec<f32>,
}

/// `log(1 + exp(x))`. Above 20 that is `x` in single precision, and `exp` would overflow later.
pub fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

impl Scratch {
    /// Takes a token's query and key, after the convolution.
    pub fn begin(&mut self, q: &[f32], k: &[f32]) {
        unit(q, (q.len() as f32).sqrt(), &mut self.q);
        unit(k, 1.0, &mut self.k);
        self.kq = dot(&self.k, &self.q);
    }

    /// One value head of the token: `state` is `[key_dim, value_dim]`, `out` `[value_dim]`.
    pub fn value_head(
        &mut self,
        v: &[f32],
        b: f32,
        a: f32,
        decay: f32,
        dt_bias: f32,
        state: &mut [f32],
        out: &mut [f32],
    ) {
        self.u.resize(v.len(), 0.0);
        let beta = 1.0 / (1.0 + (-b).exp());
        let keep = (decay * softplus(a + dt_bias)).exp();
        // Decay and both reads happen in one pass over the old state:
        // o = S q with S = keep S_old + u kᵀ is keep (S_old q) + u (k·q).
        update(state, &self.q, &self.k, v, &mut self.u, out, [beta, keep, self.kq]);
    }
}

widest! {
    fn update(
        state: &mut [f32],
        q: &[f32],
        k: &[f32],
        v: &[f32],
        u: &mut [f32],
        out: &mut [f32],
        factors: [f32; 3],
    ) {
        let mut at = 0;
        while at + 64 <= v.len() {
            columns::<FMA, 16, 4>(state, q, k, v, u, out, factors, at);
            at += 64;
        }
        while at + 8 <= v.len() {
            columns::<FMA, 8, 1>(state, q, k, v, u, out, factors, at);
            at += 8;
        }
        for at in at..v.len() {
            columns::<FMA, 1, 1>(state, q, k, v, u, out, factors, at);
        }
        let keep = factors[1];
        for (row, k) in state.chunks_exact_mut(v.len()).zip(k) {
            for (state, u) in row.iter_mut().zip(u.iter()) {
                *state = fused::<FMA>(*u, *k, keep * *state);
            }
        }
    }
}

/// `P` registers of `W` values side by side: their columns of the state are read once, for `k`
/// and `q`.
#[inline(always)]
fn columns<const FMA: bool, const W: usize, const P: usize>(
    state: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    u: &mut [f32],
    out: &mut [f32],
    [beta, keep, kq]: [f32; 3],
    at: usize,
) {
    let dim = v.len();
    let (mut from_k, mut from_q) = ([[0.0f32; W]; P], [[0.0f32; W]; P]);
    for ((row, k), q) in state.chunks_exact(dim).zip(k).zip(q) {
        let row: &[[f32; W]; P] = row[at..].as_chunks().0.first_chunk().expect("within the row");
        for part in 0..P {
            for lane in 0..W {
                from_k[part][lane] = fused::<FMA>(row[part][lane], *k, from_k[part][lane]);
            }
            for lane in 0..W {
                from_q[part][lane] = fused::<FMA>(row[part][lane], *q, from_q[part][lane]);
            }
        }
    }
    for part in 0..P {
        for lane in 0..W {
            let value = at + part * W + lane;
            u[value] = beta * (v[value] - keep * from_k[part][lane]);
            out[value] = keep * from_q[part][lane] + u[value] * kq;
        }
    }
}

fn unit(x: &[f32], divisor: f32, out: &mut Vec<f32>) {
    let scale = 1.0 / ((sum_of_squares(x) + 1e-6).sqrt() * divisor);
    out.clear();
    out.extend(x.iter().map(|x| x * scale));
}
