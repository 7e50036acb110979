//! From a scheduler's plan to the rows that a device computes.

use kernels::{SequenceRows, StepInputs};
use scheduler::{Copy, StepPlan};

/// Message boundaries that a prompt keeps its state at: the last ones, since a conversation goes
/// on, or is edited, near its end.
const BOUNDARIES: usize = 4;
/// Tokens between states kept within a long prompt, whatever its messages.
const STRIDE: u32 = 1024;

/// What every rank does in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepWork {
    /// First, in order.
    pub(crate) copies: Vec<Copy>,
    pub(crate) inputs: StepInputs,
}

/// Where a prompt of `length` tokens keeps its recurrent state.
pub(crate) fn checkpoint_positions(boundaries: &[u32], length: u32) -> Vec<u32> {
    let strides = (1..).map(|step| step * STRIDE).take_while(|at| *at < length);
    let last = &boundaries[boundaries.len().saturating_sub(BOUNDARIES)..];
    let mut positions: Vec<u32> = strides.chain(last.iter().copied()).collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

/// A plan's copies and rows.
pub(crate) fn step_work(plan: &StepPlan) -> StepWork {
    StepWork { copies: plan.copies.clone(), inputs: step_inputs(plan) }
}

/// The rows of a step: entries one after the other. Models without recurrent layers have no slot
/// to look at, so any number does.
fn step_inputs(plan: &StepPlan) -> StepInputs {
    let mut inputs = StepInputs { ahead: plan.ahead, ..StepInputs::default() };
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
    fn states_are_kept_at_the_last_boundaries_and_at_a_stride() {
        let boundaries = [3, 9, 20, 31, 40];
        assert_eq!(checkpoint_positions(&boundaries, 50), [9, 20, 31, 40]);
        assert_eq!(checkpoint_positions(&[1024, 2000], 2100), [1024, 2000, 2048]);
        assert!(checkpoint_positions(&[], 1024).is_empty());
    }

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
        let inputs = step_inputs(&StepPlan { entries, ..StepPlan::default() });
        assert_eq!(inputs.tokens, [1, 2, 3, 9]);
        assert_eq!(inputs.logit_rows, [3]);
        let rows: Vec<_> = inputs.sequences.iter().map(|s| (s.first_row, s.rows)).collect();
        assert_eq!(rows, [(0, 3), (3, 1)]);
    }
}
