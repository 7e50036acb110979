//! From a scheduler's plan to the rows that a device computes.

use kernels::{SequenceRows, StepInputs};
use scheduler::StepPlan;

/// The rows of a step: entries one after the other. Models without recurrent layers have no slot
/// to look at, so any number does.
pub(crate) fn step_inputs(plan: &StepPlan) -> StepInputs {
    let mut inputs = StepInputs::default();
    for entry in &plan.entries {
        let first_row = inputs.tokens.len();
        inputs.tokens.extend(&entry.tokens);
        inputs.sequences.push(SequenceRows {
            first_row,
            rows: entry.tokens.len(),
            start: entry.start as usize,
            blocks: entry.blocks.clone(),
            slot: entry.slot.unwrap_or(0) as usize,
        });
        if entry.sample {
            inputs.logit_rows.push(inputs.tokens.len() - 1);
        }
    }
    inputs
}

#[cfg(test)]
mod tests {
    use scheduler::Entry;

    use super::*;

    #[test]
    fn entries_follow_one_another() {
        let entry = |start, tokens: &[u32], sample| Entry {
            request: 1,
            start,
            tokens: tokens.to_vec(),
            blocks: vec![4],
            slot: Some(2),
            sample,
        };
        let entries = vec![entry(0, &[1, 2, 3], false), entry(7, &[9], true)];
        let inputs = step_inputs(&StepPlan { entries });
        assert_eq!(inputs.tokens, [1, 2, 3, 9]);
        assert_eq!(inputs.logit_rows, [3]);
        let rows: Vec<_> = inputs.sequences.iter().map(|s| (s.first_row, s.rows)).collect();
        assert_eq!(rows, [(0, 3), (3, 1)]);
    }
}
