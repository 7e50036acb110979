//! One row's choice on the CPU.

use super::{SampleRow, uniform};

/// The chosen token, or `None` when a logit is NaN or +infinity, or nothing may be chosen.
/// `logits` is the row without ids beyond the vocabulary; it is changed.
pub fn choose(row: &SampleRow, logits: &mut [f32]) -> Option<u32> {
    if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        return None;
    }
    adjust(row, logits);
    let best = best(logits)?;
    if row.temperature <= 0.0 {
        return Some(best);
    }
    let highest = logits[best as usize];
    let inverse = 1.0 / row.temperature;
    let weight = |logit: f32| ((logit - highest) * inverse).exp();
    let keeps_all = row.top_k == 0 && row.top_p >= 1.0 && row.min_p <= 0.0;
    let candidates = logits.iter().enumerate().map(|(id, logit)| (id as u32, weight(*logit)));
    let draw = uniform(row.seed, row.position);
    if keeps_all {
        let candidates: Vec<_> = candidates.filter(|(_, weight)| *weight > 0.0).collect();
        return Some(pick(&candidates, draw));
    }
    // The best token's weight is 1, so min-p compares with the weight itself.
    let candidates = candidates.filter(|(_, weight)| *weight > 0.0 && *weight >= row.min_p);
    Some(pick(&truncate(row, candidates.collect()), draw))
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

/// The `top_k` largest, then of those the fewest whose share reaches `top_p`; largest first.
fn truncate(row: &SampleRow, mut candidates: Vec<(u32, f32)>) -> Vec<(u32, f32)> {
    let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let keep = row.top_k as usize;
    if keep > 0 && keep < candidates.len() {
        candidates.select_nth_unstable_by(keep - 1, descending);
        candidates.truncate(keep);
    }
    candidates.sort_unstable_by(descending);
    if row.top_p < 1.0 {
        let total: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let wanted = f64::from(row.top_p) * total;
        let mut sum = 0.0;
        let enough = candidates.iter().position(|(_, weight)| {
            sum += f64::from(*weight);
            sum >= wanted
        });
        candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
    }
    candidates
}

/// The candidate under which the share `draw` of the total weight falls.
fn pick(candidates: &[(u32, f32)], draw: f64) -> u32 {
    let total: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let mut left = draw * total;
    for (id, weight) in candidates {
        left -= f64::from(*weight);
        if left < 0.0 {
            return *id;
        }
    }
    // Rounding can leave a crumb behind the last candidate.
    candidates[candidates.len() - 1].0
}
