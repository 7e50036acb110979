//! The formula as loops.

/// One query head against `keys` and `values`, each `[tokens, head_dim]`.
pub fn attention(query: &[f64], keys: &[f64], values: &[f64]) -> Vec<f64> {
    let dim = query.len();
    let scale = (dim as f64).sqrt().recip();
    let scores: Vec<f64> = keys
        .chunks_exact(dim)
        .map(|key| scale * key.iter().zip(query).map(|(k, q)| k * q).sum::<f64>())
        .collect();
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; dim];
    for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
        for (out, value) in out.iter_mut().zip(value) {
            *out += weight / total * value;
        }
    }
    out
}
