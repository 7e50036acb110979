//! An attention layer between its projections, stage by stage.

use std::cell::RefCell;

use super::pool::Parts;
use super::{Cpu, SMALL_STEP, Tensor};
use crate::backend::{SequenceRows, StepInputs};
use crate::paged_attention::cpu::KvCache;
use crate::paged_attention::{AttentionLayer, AttentionShape};
use crate::{paged_attention, rope_kv};

thread_local! {
    /// Each thread's memory for attention.
    static ATTENTION: RefCell<paged_attention::cpu::Scratch> = RefCell::default();
}

/// Cosines and sines of a step's rows, kept from layer to layer.
#[derive(Default)]
pub(super) struct Rotations {
    /// The base and the rotated elements that they were computed for.
    pub(super) of: Option<(f64, usize)>,
    rows: Vec<Vec<(f32, f32)>>,
}

impl Cpu {
    /// Norms and rotates queries in place, and puts keys and values into their blocks.
    pub(super) fn rope_kv(
        &mut self,
        layer: &AttentionLayer<Vec<f32>>,
        qkv: &mut Tensor,
        cache: &mut KvCache,
    ) {
        let AttentionLayer { shape, q_norm, k_norm } = layer;
        let rows = rows_of(&self.step);
        let rotations = rotations(&mut self.rotations, shape, &rows);
        let (cols, norms) = (qkv.cols, (&q_norm[..], &k_norm[..]));
        let parts = Parts::new(qkv.rows_mut(rows.len()), cols);
        self.pool.run_in_runs(rows.len(), |row| {
            // SAFETY: each task has its own row.
            let out = unsafe { parts.part(row) };
            rope_kv::cpu::norm_and_rotate(shape, out, norms, &rotations[row]);
        });
        let cache = cache.parts();
        let tasks = if rows.len() < SMALL_STEP { 1 } else { shape.kv_heads };
        self.pool.run(tasks, |task| {
            for (row, (position, sequence)) in qkv.rows(rows.len()).chunks_exact(cols).zip(&rows) {
                for head in (task..shape.kv_heads).step_by(tasks) {
                    // SAFETY: each task has its own heads.
                    unsafe { cache.put(shape, head, row, &sequence.blocks, *position) };
                }
            }
        });
    }

    /// Causal attention of the step's queries over all their keys.
    pub(super) fn attend(
        &mut self,
        shape: &AttentionShape,
        qkv: &Tensor,
        cache: &KvCache,
        out: &mut Tensor,
    ) {
        let run = paged_attention::cpu::TASK_ROWS;
        let tasks: Vec<(usize, &SequenceRows)> = (self.step.sequences.iter())
            .flat_map(|s| (0..s.rows).step_by(run).map(move |first| (first, s)))
            .collect();
        let heads = shape.kv_heads;
        assert_eq!(out.cols, shape.out_cols());
        let parts = Parts::new(out.rows_mut(self.step.rows()), shape.out_cols() / heads);
        self.pool.run(tasks.len() * heads, |task| {
            let ((first, sequence), head) = (tasks[task / heads], task % heads);
            let rows = first..(first + run).min(sequence.rows);
            let mut rows: Vec<_> = (rows.start + sequence.first_row..rows.end + sequence.first_row)
                .map(|row| {
                    let x = &qkv.values[row * qkv.cols..(row + 1) * qkv.cols];
                    // SAFETY: each task has its own rows and key-value head, hence its own parts.
                    (x, unsafe { parts.part(row * heads + head) })
                })
                .collect();
            let (blocks, position) = (&sequence.blocks, sequence.start + first);
            ATTENTION.with_borrow_mut(|scratch| {
                paged_attention::cpu::attend(
                    shape, cache, blocks, position, head, &mut rows, scratch,
                );
            });
        });
    }
}

/// The position and sequence of each row.
fn rows_of(step: &StepInputs) -> Vec<(usize, &SequenceRows)> {
    let sequences = step.sequences.iter();
    sequences.flat_map(|s| (0..s.rows).map(move |at| (s.start + at, s))).collect()
}

fn rotations<'a>(
    kept: &'a mut Rotations,
    shape: &AttentionShape,
    rows: &[(usize, &SequenceRows)],
) -> &'a [Vec<(f32, f32)>] {
    let of = Some((shape.rope_theta, shape.rotary_dim));
    if kept.of != of {
        let frequencies = rope_kv::cpu::frequencies(shape);
        let rotation = |(position, _): &(usize, _)| rope_kv::cpu::rotation(&frequencies, *position);
        *kept = Rotations { of, rows: rows.iter().map(rotation).collect() };
    }
    &kept.rows
}
