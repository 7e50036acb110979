//! What the model thinks of a token and of its rivals.

/// Natural logarithms of probabilities: the log-softmax of a row's logits as they came.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the chosen token; minus infinity where its logit is.
    pub chosen: f32,
    /// The most probable tokens, best first, the lower id first where two are equal. Fewer than
    /// asked for when the vocabulary is smaller.
    pub top: Vec<(u32, f32)>,
}

/// The logarithm of the sum of `exp(logit)`, as f64: subtracted from a logit, it gives the token's
/// log-probability.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - highest).exp())).sum();
    f64::from(highest) + sum.ln()
}

/// The `count` largest logits, best first.
pub(super) fn largest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (id, logit) in logits.iter().enumerate() {
        let full = best.len() == count;
        if full && best.last().is_none_or(|(_, least)| logit <= least) {
            continue;
        }
        // Behind its equals, which have lower ids.
        let place = best.partition_point(|(_, better)| better >= logit);
        best.insert(place, (id as u32, *logit));
        best.truncate(count);
    }
    best
}
