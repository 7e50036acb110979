//! The CPU as a backend: f32 activations, weights as the file holds them, a pool of threads.

pub mod pool;

use crate::backend::{Backend, KvShape, SequenceRows, StepInputs};
use crate::causal_conv1d::ConvShape;
use crate::gated_delta_rule::DeltaShape;
use crate::linear::cpu::{Inputs, linear};
use crate::moe::{self, MoeShape, MoeWeights};
use crate::paged_attention::AttentionShape;
use crate::paged_attention::cpu::KvCache;
use crate::rms_norm::cpu::rms_norm;
use crate::sample::{SampleRow, choose};
use crate::weight::Weight;
use crate::{causal_conv1d, embed, gated_delta_rule, gated_norm, paged_attention, rope_kv, swiglu};
use pool::{Parts, Pool};

/// See the module.
pub struct Cpu {
    pool: Pool,
    step: StepInputs,
}

/// Activations `[max_rows, cols]`.
pub struct Tensor {
    values: Vec<f32>,
    cols: usize,
}

/// Recurrent state `[slots, elements]`.
pub struct State {
    values: Vec<f32>,
    elements: usize,
}

impl Tensor {
    fn rows(&self, rows: usize) -> &[f32] {
        &self.values[..rows * self.cols]
    }

    fn rows_mut(&mut self, rows: usize) -> &mut [f32] {
        &mut self.values[..rows * self.cols]
    }
}

impl State {
    /// A sequence's state; zeroed first when the sequence is at its start.
    fn of(&mut self, sequence: &SequenceRows) -> &mut [f32] {
        let start = sequence.slot * self.elements;
        let state = &mut self.values[start..start + self.elements];
        if sequence.start == 0 {
            state.fill(0.0);
        }
        state
    }
}

impl Cpu {
    /// A backend with `threads` threads, the caller's included.
    pub fn new(threads: usize) -> Self {
        Self { pool: Pool::new(threads), step: StepInputs::default() }
    }

    fn project_into(&self, x: &Tensor, matrix: &Weight, out: &mut Tensor, add: bool) {
        let rows = self.step.rows();
        let inputs = Inputs::new(x.rows(rows), x.cols, &[matrix]);
        let stride = out.cols;
        linear(&self.pool, &inputs, matrix, out.rows_mut(rows), stride, 0, add);
    }
}

/// `rms_norm` of each row of `x`.
fn norm_rows<'a>(rows: impl Iterator<Item = &'a [f32]>, norm: &[f32], eps: f32) -> Vec<f32> {
    let mut normed = Vec::new();
    for row in rows {
        let start = normed.len();
        normed.resize(start + row.len(), 0.0);
        rms_norm(row, norm, eps, &mut normed[start..]);
    }
    normed
}

impl Backend for Cpu {
    type Tensor = Tensor;
    type Matrix = Weight;
    type Vector = Vec<f32>;
    type KvCache = KvCache;
    type State = State;

    fn matrix(&mut self, weight: &Weight) -> Weight {
        weight.clone()
    }

    fn vector(&mut self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }

    fn tensor(&mut self, max_rows: usize, cols: usize) -> Tensor {
        Tensor { values: vec![0.0; max_rows * cols], cols }
    }

    fn kv_cache(&mut self, shape: KvShape) -> KvCache {
        KvCache::new(shape)
    }

    fn state(&mut self, slots: usize, elements: usize) -> State {
        State { values: vec![0.0; slots * elements], elements }
    }

    fn copy_block(&mut self, cache: &mut KvCache, from: usize, to: usize) {
        cache.copy_block(from, to);
    }

    fn copy_state(&mut self, state: &mut State, from: usize, to: usize) {
        let size = state.elements;
        state.values.copy_within(from * size..(from + 1) * size, to * size);
    }

    fn begin_step(&mut self, inputs: StepInputs) {
        self.step = inputs;
    }

    fn read(&mut self, tensor: &Tensor, rows: usize) -> Vec<f32> {
        tensor.rows(rows).to_vec()
    }

    fn write(&mut self, tensor: &mut Tensor, values: &[f32]) {
        tensor.values[..values.len()].copy_from_slice(values);
    }

    fn embed(&mut self, table: &Weight, out: &mut Tensor) {
        embed::embed(table, &self.step.tokens, out.rows_mut(self.step.rows()));
    }

    fn norm_project(
        &mut self,
        x: &Tensor,
        norm: &Vec<f32>,
        eps: f32,
        parts: &[Weight],
        out: &mut Tensor,
    ) {
        let rows = self.step.rows();
        let normed = norm_rows(x.rows(rows).chunks_exact(x.cols), norm, eps);
        let inputs = Inputs::new(&normed, x.cols, &parts.iter().collect::<Vec<_>>());
        let stride = out.cols;
        let mut first = 0;
        for part in parts {
            linear(&self.pool, &inputs, part, out.rows_mut(rows), stride, first, false);
            first += part.rows;
        }
        assert_eq!(first, stride, "the parts fill the columns");
    }

    fn project(&mut self, x: &Tensor, matrix: &Weight, out: &mut Tensor) {
        self.project_into(x, matrix, out, false);
    }

    fn project_add(&mut self, x: &Tensor, matrix: &Weight, residual: &mut Tensor) {
        self.project_into(x, matrix, residual, true);
    }

    fn add(&mut self, x: &Tensor, residual: &mut Tensor) {
        let rows = self.step.rows();
        for (residual, x) in residual.rows_mut(rows).iter_mut().zip(x.rows(rows)) {
            *residual += x;
        }
    }

    fn rope_kv(
        &mut self,
        shape: &AttentionShape,
        qkv: &mut Tensor,
        norms: (&Vec<f32>, &Vec<f32>),
        cache: &mut KvCache,
    ) {
        let frequencies = rope_kv::cpu::frequencies(shape);
        let cols = qkv.cols;
        for sequence in &self.step.sequences {
            for at in 0..sequence.rows {
                let row = (sequence.first_row + at) * cols;
                let row = &mut qkv.values[row..row + cols];
                let token = sequence.start + at;
                let rotation = rope_kv::cpu::rotation(&frequencies, token);
                let norms = (&norms.0[..], &norms.1[..]);
                let blocks = &sequence.blocks;
                rope_kv::cpu::rope_kv(shape, row, norms, &rotation, cache, blocks, token);
            }
        }
    }

    fn attention(
        &mut self,
        shape: &AttentionShape,
        qkv: &Tensor,
        cache: &KvCache,
        out: &mut Tensor,
    ) {
        let tasks: Vec<(usize, usize, &SequenceRows)> = (self.step.sequences.iter())
            .flat_map(|s| (0..s.rows).map(move |at| (s.first_row + at, s.start + at, s)))
            .collect();
        let group = shape.out_cols() / shape.kv_heads;
        assert_eq!(out.cols, shape.out_cols());
        let parts = Parts::new(out.rows_mut(self.step.rows()), group);
        self.pool.run(tasks.len() * shape.kv_heads, |task| {
            let (row, position, sequence) = tasks[task / shape.kv_heads];
            let head = task % shape.kv_heads;
            // SAFETY: each task has its own row and key-value head, hence its own part.
            let out = unsafe { parts.part(row * shape.kv_heads + head) };
            let row = &qkv.values[row * qkv.cols..(row + 1) * qkv.cols];
            let blocks = &sequence.blocks;
            let mut scores = Vec::new();
            paged_attention::cpu::attend(
                shape,
                cache,
                blocks,
                position,
                head,
                row,
                out,
                &mut scores,
            );
        });
    }

    fn causal_conv1d(
        &mut self,
        shape: &ConvShape,
        x: &mut Tensor,
        taps: &Vec<f32>,
        state: &mut State,
    ) {
        let cols = x.cols;
        for sequence in &self.step.sequences {
            let state = state.of(sequence);
            let start = sequence.first_row * cols;
            let rows = &mut x.values[start..start + sequence.rows * cols];
            for row in rows.chunks_exact_mut(cols) {
                let row = &mut row[..shape.channels];
                causal_conv1d::cpu::causal_conv1d(shape, row, taps, state);
            }
        }
    }

    fn gated_delta_rule(
        &mut self,
        shape: &DeltaShape,
        projected: &Tensor,
        decay: &Vec<f32>,
        dt_bias: &Vec<f32>,
        state: &mut State,
        out: &mut Tensor,
    ) {
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
                    decay[head],
                    dt_bias[head],
                    state,
                    out,
                    &mut scratch,
                );
            }
        });
    }

    fn gated_norm(
        &mut self,
        shape: &DeltaShape,
        projected: &Tensor,
        weight: &Vec<f32>,
        eps: f32,
        x: &mut Tensor,
    ) {
        let rows = self.step.rows();
        let cols = x.cols;
        let projected = projected.rows(rows).chunks_exact(projected.cols);
        for (x, projected) in x.rows_mut(rows).chunks_exact_mut(cols).zip(projected) {
            let z = &projected[shape.z_offset()..shape.b_offset()];
            gated_norm::gated_norm(x, z, weight, eps);
        }
    }

    fn swiglu(&mut self, gate_up: &Tensor, out: &mut Tensor) {
        let rows = self.step.rows();
        let cols = out.cols;
        let gate_up = gate_up.rows(rows).chunks_exact(gate_up.cols);
        for (out, gate_up) in out.rows_mut(rows).chunks_exact_mut(cols).zip(gate_up) {
            swiglu::swiglu(gate_up, out);
        }
    }

    fn moe(
        &mut self,
        shape: &MoeShape,
        x: &Tensor,
        (norm, eps): (&Vec<f32>, f32),
        weights: &MoeWeights<Weight>,
        out: &mut Tensor,
    ) {
        let rows = self.step.rows();
        let normed = norm_rows(x.rows(rows).chunks_exact(x.cols), norm, eps);
        moe::cpu::moe(&self.pool, shape, weights, &normed, out.rows_mut(rows));
    }

    fn logits(&mut self, x: &Tensor, norm: &Vec<f32>, eps: f32, head: &Weight, out: &mut Tensor) {
        let rows = &self.step.logit_rows;
        let wanted = rows.iter().map(|row| &x.values[row * x.cols..(row + 1) * x.cols]);
        let normed = norm_rows(wanted, norm, eps);
        let inputs = Inputs::new(&normed, x.cols, &[head]);
        let stride = out.cols;
        linear(&self.pool, &inputs, head, out.rows_mut(rows.len()), stride, 0, false);
    }

    fn sample(
        &mut self,
        logits: &mut Tensor,
        vocab: usize,
        rows: &[SampleRow],
    ) -> Vec<Option<u32>> {
        let cols = logits.cols;
        let logits = logits.rows_mut(rows.len()).chunks_exact_mut(cols);
        rows.iter().zip(logits).map(|(row, logits)| choose(row, &mut logits[..vocab])).collect()
    }
}
