//! The same choice in f64, as the definitions read, with no thought for speed.

use super::SampleRow;

/// The distribution that a token is drawn from, in the order in which the draw walks it: by id
/// where nothing is cut, otherwise best first. Greedy has one entry. Empty where nothing may be
/// chosen.
pub(super) fn distribution(row: &SampleRow, logits: &[f32]) -> Vec<(u32, f64)> {
    let logits: Vec<f64> = (0..).zip(logits).map(|(id, it)| adjusted(row, id, *it)).collect();
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return Vec::new();
    }
    if row.temperature <= 0.0 {
        let best = logits.iter().position(|logit| *logit == highest).unwrap();
        return vec![(best as u32, 1.0)];
    }
    let weight = |logit: f64| ((logit - highest) / f64::from(row.temperature)).exp();
    let mut kept: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|it| weight(*it))).collect();
    kept.retain(|(_, weight)| *weight > 0.0);
    if row.top_k > 0 || row.top_p < 1.0 || row.min_p > 0.0 {
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    }
    if row.top_k > 0 {
        kept.truncate(row.top_k as usize);
    }
    if row.top_p < 1.0 {
        let shares = normalised(&kept);
        let before = |at: usize| shares[..at].iter().map(|(_, share)| share).sum::<f64>();
        let enough = (0..kept.len()).filter(|at| before(*at) < f64::from(row.top_p)).count();
        kept.truncate(enough.max(1));
    }
    let best = kept.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
    kept.retain(|(_, weight)| *weight >= f64::from(row.min_p) * best);
    normalised(&kept)
}

/// One token's logit after bias, penalties, bans and mask.
fn adjusted(row: &SampleRow, id: u32, logit: f32) -> f64 {
    let biases = row.logit_bias.iter().filter(|(biased, _)| *biased == id);
    let mut logit = f64::from(logit) + biases.map(|(_, bias)| f64::from(*bias)).sum::<f64>();
    if row.seen.contains(&id) {
        let penalty = f64::from(row.repetition_penalty);
        logit = if logit > 0.0 { logit / penalty } else { logit * penalty };
    }
    if let Some((_, count)) = row.generated.iter().find(|(generated, _)| *generated == id) {
        let each = f64::from(row.frequency_penalty) * f64::from(*count);
        logit -= f64::from(row.presence_penalty) + each;
    }
    let forbidden = row.allowed.as_ref().is_some_and(|mask| !mask.allows(id));
    if forbidden || row.banned.contains(&id) { f64::NEG_INFINITY } else { logit }
}

fn normalised(weights: &[(u32, f64)]) -> Vec<(u32, f64)> {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    weights.iter().map(|(id, weight)| (*id, weight / total)).collect()
}

/// The log-softmax of the logits as they came.
pub(super) fn logprobs(logits: &[f32]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    logits.iter().map(|logit| f64::from(*logit) - total.ln()).collect()
}
