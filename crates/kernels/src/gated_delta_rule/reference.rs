//! The recurrence as loops.

use super::DeltaShape;

/// One value head over tokens in order. Each item of `tokens` is a row of the projection after the
/// convolution; `state` is `[value_dim, key_dim]`. Returns `[tokens, value_dim]`.
pub fn gated_delta_rule(
    shape: &DeltaShape,
    head: usize,
    rows: &[Vec<f64>],
    decay: f64,
    dt_bias: f64,
    state: &mut [f64],
) -> Vec<f64> {
    let mut out = Vec::new();
    for row in rows {
        let q_start = shape.key_head(head) * shape.key_dim;
        let k_start = shape.key_cols() + q_start;
        let v_start = 2 * shape.key_cols() + head * shape.value_dim;
        let q = unit(&row[q_start..q_start + shape.key_dim], (shape.key_dim as f64).sqrt());
        let k = unit(&row[k_start..k_start + shape.key_dim], 1.0);
        let v = &row[v_start..v_start + shape.value_dim];
        let beta = 1.0 / (1.0 + (-row[shape.b_offset() + head]).exp());
        let x = row[shape.b_offset() + shape.value_heads + head] + dt_bias;
        let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
        let keep = (decay * softplus).exp();
        for (v, state) in v.iter().zip(state.chunks_exact_mut(shape.key_dim)) {
            state.iter_mut().for_each(|s| *s *= keep);
            let read: f64 = state.iter().zip(&k).map(|(s, k)| s * k).sum();
            let u = beta * (v - read);
            state.iter_mut().zip(&k).for_each(|(s, k)| *s += u * k);
            out.push(state.iter().zip(&q).map(|(s, q)| s * q).sum());
        }
    }
    out
}

fn unit(x: &[f64], divisor: f64) -> Vec<f64> {
    let norm = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt() * divisor;
    x.iter().map(|x| x / norm).collect()
}
