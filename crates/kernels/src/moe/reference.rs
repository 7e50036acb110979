//! The formula as loops in double precision.

use super::{Expert, MoeShape, MoeWeights};
use crate::linear::reference::linear;
use crate::weight::Weight;

/// `x` is `[rows, hidden]`, and so is the result.
pub fn moe(shape: &MoeShape, weights: &MoeWeights<Weight>, x: &[f64]) -> Vec<f64> {
    let mut out = Vec::new();
    for x in x.chunks_exact(weights.router.cols) {
        let logits = linear(&weights.router, x);
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let mut chosen: Vec<usize> = Vec::new();
        for _ in 0..shape.top_k {
            let mut best = None;
            for expert in (0..shape.experts).filter(|expert| !chosen.contains(expert)) {
                if best.is_none_or(|best: usize| logits[expert] > logits[best]) {
                    best = Some(expert);
                }
            }
            chosen.extend(best);
        }
        let probability = |expert: usize| logits[expert].exp() / total;
        let kept: f64 = chosen.iter().map(|expert| probability(*expert)).sum();
        let mut row = vec![0.0; x.len()];
        for &expert in &chosen {
            let weight = probability(expert) / if shape.renormalise { kept } else { 1.0 };
            add(&mut row, weight, &feed_forward(&weights.experts[expert], x));
        }
        if let Some(shared) = &weights.shared {
            let gate = 1.0 / (1.0 + (-linear(&shared.gate, x)[0]).exp());
            add(&mut row, gate, &feed_forward(&shared.expert, x));
        }
        out.extend(row);
    }
    out
}

fn feed_forward(expert: &Expert<Weight>, x: &[f64]) -> Vec<f64> {
    let (gate, up) = (linear(&expert.gate, x), linear(&expert.up, x));
    let activated: Vec<f64> =
        gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
    linear(&expert.down, &activated)
}

fn add(sum: &mut [f64], weight: f64, values: &[f64]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += weight * value;
    }
}
