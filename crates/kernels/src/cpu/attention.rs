//! An attention layer between its projections, stage by stage.

use std::cell::RefCell;

use super::parts::Parts;
use super::{Cpu, SMALL_STEP, Tensor};
use crate::paged_attention::cache::{Blocks, Element, Kept};
use crate::paged_attention::cpu::{KvCache, TASK_ROWS, attend};
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
    frequencies: Vec<f64>,
    /// `[rows, rotated pairs]`.
    pairs: Vec<(f32, f32)>,
}

impl Rotations {
    /// Those of positions `rows`, `pairs` a row.
    fn of(&mut self, shape: &AttentionShape, rows: &[(usize, usize)]) -> &[(f32, f32)] {
        let of = Some((shape.rope_theta, shape.rotary_dim));
        if self.of != of {
            self.of = of;
            self.frequencies.clear();
            self.frequencies.extend(rope_kv::cpu::frequencies(shape));
            self.pairs.clear();
            for (position, _) in rows {
                self.pairs.extend(rope_kv::cpu::rotation(&self.frequencies, *position));
            }
        }
        &self.pairs
    }
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
        let rows = &self.rows;
        let pairs = self.rotations.of(shape, rows);
        let (cols, norms) = (qkv.cols, (&q_norm[..], &k_norm[..]));
        let parts = Parts::new(qkv.rows_mut(rows.len()), cols);
        self.pool.run_in_runs(rows.len(), |row| {
            // SAFETY: each task has its own row.
            let out = unsafe { parts.part(row) };
            let half = shape.rotary_dim / 2;
            let rotation = &pairs[row * half..(row + 1) * half];
            rope_kv::cpu::norm_and_rotate(shape, out, norms, rotation);
        });
        match &mut cache.0 {
            Kept::Half(blocks) => self.put(shape, qkv, blocks),
            Kept::Single(blocks) => self.put(shape, qkv, blocks),
        }
    }

    /// Puts the keys and values of the step's rows into their blocks.
    fn put<T: Element>(&self, shape: &AttentionShape, qkv: &Tensor, cache: &mut Blocks<T>) {
        let cache = cache.parts();
        let tasks = if self.rows.len() < SMALL_STEP { 1 } else { shape.kv_heads };
        self.pool.run(tasks, |task| {
            for (at, (position, sequence)) in self.rows.iter().enumerate() {
                let blocks = &self.step.sequences[*sequence].blocks;
                for head in (task..shape.kv_heads).step_by(tasks) {
                    // SAFETY: each task has its own heads.
                    unsafe { cache.put(shape, head, qkv.row(at), blocks, *position) };
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
        let heads = shape.kv_heads;
        assert_eq!(out.cols, shape.out_cols());
        let parts = Parts::new(out.rows_mut(self.step.rows()), shape.out_cols() / heads);
        self.pool.run(self.runs.len() * heads, |task| {
            let ((first, sequence), head) = (self.runs[task / heads], task % heads);
            let sequence = &self.step.sequences[sequence];
            let count = TASK_ROWS.min(sequence.rows - first);
            let mut rows: [(&[f32], &mut [f32]); TASK_ROWS] = Default::default();
            for (at, slot) in rows[..count].iter_mut().enumerate() {
                let row = sequence.first_row + first + at;
                // SAFETY: each task has its own rows and key-value head, hence its own parts.
                *slot = (qkv.row(row), unsafe { parts.part(row * heads + head) });
            }
            let (blocks, position) = (&sequence.blocks, sequence.start + first);
            let rows = &mut rows[..count];
            ATTENTION.with_borrow_mut(|scratch| match &cache.0 {
                Kept::Half(kv) => attend(shape, kv, blocks, position, head, rows, scratch),
                Kept::Single(kv) => attend(shape, kv, blocks, position, head, rows, scratch),
            });
        });
    }
}
