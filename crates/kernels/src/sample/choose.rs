//! One row's choice on the CPU.

use super::logprobs::{Logprobs, largest, log_sum_exp};
use super::{Choice, SampleRow, uniform};

/// The chosen token, or `None` when a logit is NaN or +infinity, or nothing may be chosen.
/// `logits` is the row without ids beyond the vocabulary; it is changed.
pub fn choose(row: &SampleRow, logits: &mut [f32]) -> Option<Choice> {
    if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        return None;
    }
    let asked = row.top_logprobs.map(usize::from);
    let told = asked.map(|count| (log_sum_exp(logits), largest(logits, count)));
    // Only a changed logit differs from the one that the model gave.
    let before = told.is_some().then(|| logits.to_vec());
    adjust(row, logits);
    let token = token(row, logits)?;
    let logprobs = told.zip(before).map(|((total, top), before)| {
        let logprob = |logit: f32| (f64::from(logit) - total) as f32;
        let top = top.into_iter().map(|(id, logit)| (id, logprob(logit))).collect();
        Logprobs { chosen: logprob(before[token as usize]), top }
    });
    Some(Choice { token, logprobs })
}

fn token(row: &SampleRow, logits: &[f32]) -> Option<u32> {
    let best = best(logits)?;
    let highest = logits[best as usize];
    // Nothing compares with an infinite logit, which a tiny penalty can make of a finite one, and a
    // temperature that is no number weighs nothing.
    let draws = row.temperature > 0.0 && highest < f32::INFINITY;
    if !draws {
        return Some(best);
    }
    // Divided, not multiplied by an inverse: that of a tiny temperature is infinite.
    let weight = |logit: f32| ((logit - highest) / row.temperature).exp();
    let weights = logits.iter().enumerate().map(|(id, logit)| (id as u32, weight(*logit)));
    let candidates = weights.filter(|(_, weight)| *weight > 0.0).collect();
    Some(pick(&truncate(row, candidates), uniform(row.seed, row.position)))
}

fn adjust(row: &SampleRow, logits: &mut [f32]) {
    let mut change = |id: u32, change: &dyn Fn(f32) -> f32| {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = change(*logit);
        }
    };
    for (id, bias) in &row.logit_bias {
        change(*id, &|logit| logit + bias);
    }
    if row.repetition_penalty != 1.0 {
        let penalty = row.repetition_penalty;
        for id in &row.seen {
            change(*id, &|logit| if logit > 0.0 { logit / penalty } else { logit * penalty });
        }
    }
    for (id, count) in &row.generated {
        let penalty = row.presence_penalty + row.frequency_penalty * *count as f32;
        change(*id, &|logit| logit - penalty);
    }
    for id in &row.banned {
        change(*id, &|_| f32::NEG_INFINITY);
    }
    if let Some(allowed) = &row.allowed {
        for (id, logit) in logits.iter_mut().enumerate() {
            if !allowed.allows(id as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// The largest logit's id, the lowest on ties; `None` when none is above minus infinity.
fn best(logits: &[f32]) -> Option<u32> {
    let mut best = None;
    let mut highest = f32::NEG_INFINITY;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > highest {
            (best, highest) = (Some(id as u32), *logit);
        }
    }
    best
}

/// The `top_k` largest, of those the fewest whose share reaches `top_p`, of those the ones with at
/// least the share `min_p` of the best one's weight, which is 1. Largest first, but by ascending
/// ids where nothing is cut.
fn truncate(row: &SampleRow, mut candidates: Vec<(u32, f32)>) -> Vec<(u32, f32)> {
    if row.top_k == 0 && row.top_p >= 1.0 && row.min_p <= 0.0 {
        return candidates;
    }
    let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let keep = row.top_k as usize;
    if keep > 0 && keep < candidates.len() {
        candidates.select_nth_unstable_by(keep - 1, descending);
        candidates.truncate(keep);
    }
    candidates.sort_unstable_by(descending);
    if row.top_p < 1.0 {
        let wanted = f64::from(row.top_p) * total(&candidates);
        let mut sum = 0.0;
        let enough = candidates.iter().position(|(_, weight)| {
            sum += f64::from(*weight);
            sum >= wanted
        });
        candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
    }
    // The first always stays, whatever the caller's share is.
    let kept = candidates.partition_point(|(_, weight)| *weight >= row.min_p);
    candidates.truncate(kept.max(1));
    candidates
}

fn total(candidates: &[(u32, f32)]) -> f64 {
    candidates.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// The candidate under which the share `draw` of the total weight falls.
fn pick(candidates: &[(u32, f32)], draw: f64) -> u32 {
    let mut left = draw * total(candidates);
    for (id, weight) in candidates {
        left -= f64::from(*weight);
        if left < 0.0 {
            return *id;
        }
    }
    // Rounding can leave a crumb behind the last candidate.
    candidates[candidates.len() - 1].0
}
