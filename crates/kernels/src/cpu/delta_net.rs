//! A delta-rule layer between its projections, stage by stage.

use super::pool::Parts;
use super::{Cpu, State, Tensor};
use crate::gated_delta_rule::{self, DeltaLayer};
use crate::{causal_conv1d, gated_norm};

impl Cpu {
    /// Over `[q | k | v]`, in place.
    pub(super) fn causal_conv1d(
        &mut self,
        layer: &DeltaLayer<Vec<f32>>,
        x: &mut Tensor,
        state: &mut State,
    ) {
        let cols = x.cols;
        for sequence in &self.step.sequences {
            let state = state.of(sequence);
            let start = sequence.first_row * cols;
            let rows = &mut x.values[start..start + sequence.rows * cols];
            for (token, row) in rows.chunks_exact_mut(cols).enumerate() {
                let row = &mut row[..layer.conv.channels];
                let position = sequence.start + token;
                causal_conv1d::cpu::causal_conv1d(&layer.conv, row, &layer.taps, state, position);
            }
        }
    }

    pub(super) fn gated_delta_rule(
        &mut self,
        layer: &DeltaLayer<Vec<f32>>,
        projected: &Tensor,
        state: &mut State,
        out: &mut Tensor,
    ) {
        let shape = &layer.shape;
        let heads = shape.value_heads;
        assert_eq!((state.elements, out.cols), (shape.state_elements(), shape.value_cols()));
        for sequence in &self.step.sequences {
            state.of(sequence);
        }
        let states = Parts::new(&mut state.values, shape.head_state());
        let outs = Parts::new(&mut out.values, shape.value_dim);
        let sequences = &self.step.sequences;
        self.pool.run(sequences.len() * heads, |task| {
            let (sequence, head) = (&sequences[task / heads], task % heads);
            // SAFETY: each task has its own slot and head, hence its own part.
            let state = unsafe { states.part(sequence.slot * heads + head) };
            let mut scratch = gated_delta_rule::cpu::Scratch::default();
            for row in sequence.first_row..sequence.first_row + sequence.rows {
                // SAFETY: each task has its own rows and head, hence its own parts.
                let out = unsafe { outs.part(row * heads + head) };
                let row = &projected.values[row * projected.cols..(row + 1) * projected.cols];
                gated_delta_rule::cpu::gated_delta_rule(
                    shape,
                    head,
                    row,
                    layer.decay[head],
                    layer.dt_bias[head],
                    state,
                    out,
                    &mut scratch,
                );
            }
        });
    }

    /// Head by head, in place.
    pub(super) fn gated_norm(
        &mut self,
        layer: &DeltaLayer<Vec<f32>>,
        projected: &Tensor,
        x: &mut Tensor,
    ) {
        let rows = self.step.rows();
        let cols = x.cols;
        let parts = Parts::new(x.rows_mut(rows), cols);
        self.pool.run_in_runs(rows, |row| {
            let projected = &projected.values[row * projected.cols..(row + 1) * projected.cols];
            let z = &projected[layer.shape.z_offset()..layer.shape.b_offset()];
            // SAFETY: each task has its own row.
            gated_norm::gated_norm(unsafe { parts.part(row) }, z, &layer.norm, layer.eps);
        });
    }
}
