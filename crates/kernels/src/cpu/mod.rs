//! The CPU as a backend: f32 activations, f16 keys and values, weights in tiles, a pool of threads.

mod attention;
pub mod cores;
mod delta_net;
mod host;
pub(crate) mod lanes;
pub(crate) mod memory;
pub mod parts;
pub mod pool;
pub(crate) mod vector;
pub(crate) mod widest;

use std::collections::VecDeque;

use crate::backend::{Backend, Begun, KvShape, SequenceRows, StepInputs};
use crate::gated_delta_rule::{DeltaLayer, DeltaState};
use crate::linear::cpu::{Inputs, Matrix, Rounded, linear};
use crate::moe::{self, MoeShape, MoeWeights};
use crate::paged_attention::AttentionLayer;
use crate::paged_attention::cache::Kept;
use crate::paged_attention::cpu::{KvCache, KvPrecision, TASK_ROWS};
use crate::quant::WeightType;
use crate::rms_norm::cpu::rms_norm;
use crate::sample::{Choice, Pick, SampleRow, choose};
use crate::weight::Weight;
use crate::{embed, swiglu};
use attention::Rotations;
use parts::Parts;
use pool::Pool;

/// See the module.
pub struct Cpu {
    pool: Pool,
    kv_precision: KvPrecision,
    step: StepInputs,
    /// Of each row: its position, and its sequence's place in the step.
    rows: Vec<(usize, usize)>,
    /// The first row of each of attention's tasks, counted from its sequence's, and the sequence.
    runs: Vec<(usize, usize)>,
    rotations: Rotations,
    weight_bytes: u64,
    work: Work,
    /// Batches of choices that nobody asked for yet, and the last one.
    picks: VecDeque<Vec<Pick>>,
    last_picks: Vec<Pick>,
}

/// What operations need on their way. It grows to the largest step's needs and stays, so that a
/// step takes no memory.
#[derive(Default)]
struct Work {
    normed: Vec<f32>,
    rounded: Rounded,
    mixture: moe::cpu::Work,
}

/// Rows below which short work is not shared out.
const SMALL_STEP: usize = 8;

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

/// The experts of a layer.
pub struct Mixture {
    shape: MoeShape,
    weights: MoeWeights<Matrix>,
}

impl Tensor {
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..(row + 1) * self.cols]
    }

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
        Self::with(Pool::new(threads))
    }

    /// Bytes of all weights that were taken over.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// A backend with a thread for each of `cores`, bound to it. The first thread is the caller's;
    /// it stays free, and the system finds it the core that is left.
    pub fn bound(cores: &[usize]) -> Self {
        Self::with(Pool::bound(cores))
    }

    /// The same with keys and values of another precision, as far as caches are still to be made.
    pub fn with_kv_precision(self, kv_precision: KvPrecision) -> Self {
        Self { kv_precision, ..self }
    }

    fn with(pool: Pool) -> Self {
        Self {
            pool,
            kv_precision: KvPrecision::default(),
            step: StepInputs::default(),
            rows: Vec::new(),
            runs: Vec::new(),
            rotations: Rotations::default(),
            weight_bytes: 0,
            work: Work::default(),
            picks: VecDeque::new(),
            last_picks: Vec::new(),
        }
    }

    fn project_into(&mut self, x: &Tensor, matrix: &Matrix, out: &mut Tensor, add: bool) {
        let rows = self.step.rows();
        let rounded = &mut self.work.rounded;
        let inputs = Inputs::new(&self.pool, x.rows(rows), x.cols, &[matrix], rounded);
        let stride = out.cols;
        linear(&self.pool, &inputs, &[matrix], out.rows_mut(rows), stride, add);
    }
}

/// `rms_norm` of the rows of `x` that `row_of` names, into memory that is kept.
fn norm_rows<'a>(
    pool: &Pool,
    x: &Tensor,
    rows: usize,
    row_of: impl Fn(usize) -> usize + Sync,
    (norm, eps): (&[f32], f32),
    normed: &'a mut Vec<f32>,
) -> &'a [f32] {
    let all = rows * x.cols;
    if normed.len() < all {
        normed.resize(all, 0.0);
    }
    let parts = Parts::new(&mut normed[..all], x.cols);
    pool.run_in_runs(rows, |row| {
        // SAFETY: each task has its own row.
        rms_norm(x.row(row_of(row)), norm, eps, unsafe { parts.part(row) });
    });
    &normed[..all]
}

impl Backend for Cpu {
    type Tensor = Tensor;
    type Matrix = Matrix;
    type Vector = Vec<f32>;
    type KvCache = KvCache;
    type State = State;
    type Mixture = Mixture;

    fn matrix_bytes(ty: WeightType, rows: usize, cols: usize) -> u64 {
        Matrix::bytes_of(ty, rows, cols) as u64
    }

    fn matrix(&mut self, weight: &Weight) -> Matrix {
        let matrix = Matrix::new(weight, &self.pool);
        self.weight_bytes += matrix.bytes() as u64;
        matrix
    }

    fn vector(&mut self, values: &[f32]) -> Vec<f32> {
        self.weight_bytes += size_of_val(values) as u64;
        values.to_vec()
    }

    fn mixture(&mut self, shape: &MoeShape, weights: &MoeWeights<Weight>) -> Mixture {
        Mixture { shape: *shape, weights: weights.map(|weight| self.matrix(weight)) }
    }

    fn tensor(&mut self, max_rows: usize, cols: usize) -> Tensor {
        Tensor { values: memory::zeros(max_rows * cols), cols }
    }

    fn kv_cache(&mut self, shape: KvShape) -> KvCache {
        KvCache::new(shape, self.kv_precision)
    }

    fn state(&mut self, slots: usize, elements: usize) -> State {
        State { values: memory::zeros(slots * elements), elements }
    }

    fn copy_block(&mut self, cache: &mut KvCache, from: usize, to: usize) {
        match &mut cache.0 {
            Kept::Half(blocks) => blocks.copy_block(from, to),
            Kept::Single(blocks) => blocks.copy_block(from, to),
        }
    }

    fn copy_state(&mut self, state: &mut State, from: usize, to: usize) {
        let size = state.elements;
        state.values.copy_within(from * size..(from + 1) * size, to * size);
    }

    fn block_bytes(&self, cache: &KvCache) -> usize {
        match &cache.0 {
            Kept::Half(blocks) => 2 * size_of::<u16>() * blocks.block_elements(),
            Kept::Single(blocks) => 2 * size_of::<f32>() * blocks.block_elements(),
        }
    }

    fn state_bytes(&self, state: &State) -> usize {
        size_of::<f32>() * state.elements
    }

    fn save_block(&mut self, cache: &KvCache, block: usize, bytes: &mut [u8]) {
        match &cache.0 {
            Kept::Half(blocks) => host::save_both(blocks.block(block), u16::to_ne_bytes, bytes),
            Kept::Single(blocks) => host::save_both(blocks.block(block), f32::to_ne_bytes, bytes),
        }
    }

    fn load_block(&mut self, cache: &mut KvCache, block: usize, bytes: &[u8]) {
        match &mut cache.0 {
            Kept::Half(to) => host::load_both(bytes, u16::from_ne_bytes, to.block_mut(block)),
            Kept::Single(to) => host::load_both(bytes, f32::from_ne_bytes, to.block_mut(block)),
        }
    }

    fn save_state(&mut self, state: &State, slot: usize, bytes: &mut [u8]) {
        let size = state.elements;
        host::save(&state.values[slot * size..(slot + 1) * size], f32::to_ne_bytes, bytes);
    }

    fn load_state(&mut self, state: &mut State, slot: usize, bytes: &[u8]) {
        let size = state.elements;
        let values = &mut state.values[slot * size..(slot + 1) * size];
        host::load(bytes, f32::from_ne_bytes, values);
    }

    fn begin_step(&mut self, inputs: StepInputs) -> Begun {
        self.step = inputs;
        if self.step.ahead {
            for (token, pick) in self.step.tokens.iter_mut().zip(&self.last_picks) {
                // Where nothing was chosen this is no token, and its row is zeros.
                *token = if let Pick::Token(token) = *pick { token } else { u32::MAX };
            }
        }
        self.rotations.of = None;
        self.rows.clear();
        self.runs.clear();
        for (at, sequence) in self.step.sequences.iter().enumerate() {
            self.rows.extend((0..sequence.rows).map(|row| (sequence.start + row, at)));
            let firsts = (0..sequence.rows).step_by(TASK_ROWS);
            self.runs.extend(firsts.map(|first| (first, at)));
        }
        Begun::Compute
    }

    fn read(&mut self, tensor: &Tensor, rows: usize) -> Vec<f32> {
        tensor.rows(rows).to_vec()
    }

    fn write(&mut self, tensor: &mut Tensor, values: &[f32]) {
        tensor.values[..values.len()].copy_from_slice(values);
    }

    fn embed(&mut self, table: &Matrix, out: &mut Tensor) {
        embed::embed(&self.pool, table, &self.step.tokens, out.rows_mut(self.step.rows()));
    }

    fn norm_project(
        &mut self,
        x: &Tensor,
        norm: &Vec<f32>,
        eps: f32,
        parts: &[Matrix],
        out: &mut Tensor,
    ) {
        let rows = self.step.rows();
        let Work { normed, rounded, .. } = &mut self.work;
        let normed = norm_rows(&self.pool, x, rows, |row| row, (norm, eps), normed);
        let inputs = Inputs::new(&self.pool, normed, x.cols, parts, rounded);
        let stride = out.cols;
        assert_eq!(parts.iter().map(Matrix::rows).sum::<usize>(), stride, "parts fill the columns");
        linear(&self.pool, &inputs, parts, out.rows_mut(rows), stride, false);
    }

    fn project(&mut self, x: &Tensor, matrix: &Matrix, out: &mut Tensor) {
        self.project_into(x, matrix, out, false);
    }

    fn project_add(&mut self, x: &Tensor, matrix: &Matrix, residual: &mut Tensor) {
        self.project_into(x, matrix, residual, true);
    }

    fn add(&mut self, x: &Tensor, residual: &mut Tensor) {
        let rows = self.step.rows();
        for (residual, x) in residual.rows_mut(rows).iter_mut().zip(x.rows(rows)) {
            *residual += x;
        }
    }

    fn attention(
        &mut self,
        layer: &AttentionLayer<Vec<f32>>,
        projected: &mut Tensor,
        cache: &mut KvCache,
        out: &mut Tensor,
    ) {
        self.rope_kv(layer, projected, cache);
        self.attend(&layer.shape, projected, cache, out);
    }

    fn delta_layer(&mut self, layer: DeltaLayer<Vec<f32>>) -> DeltaLayer<Vec<f32>> {
        layer.map(|values| self.vector(&values))
    }

    fn delta_net(
        &mut self,
        layer: &DeltaLayer<Vec<f32>>,
        projected: &mut Tensor,
        state: &mut DeltaState<State>,
        out: &mut Tensor,
    ) {
        self.run_delta_net(layer, projected, state, out);
    }

    fn swiglu(&mut self, gate_up: &Tensor, out: &mut Tensor) {
        let rows = self.step.rows();
        let cols = out.cols;
        let parts = Parts::new(out.rows_mut(rows), cols);
        self.pool.run_in_runs(rows, |row| {
            let gate_up = &gate_up.values[row * gate_up.cols..(row + 1) * gate_up.cols];
            // SAFETY: each task has its own row.
            swiglu::swiglu(gate_up, unsafe { parts.part(row) });
        });
    }

    fn moe(
        &mut self,
        mixture: &Mixture,
        x: &Tensor,
        (norm, eps): (&Vec<f32>, f32),
        out: &mut Tensor,
    ) {
        let rows = self.step.rows();
        let Work { normed, rounded, mixture: work } = &mut self.work;
        let normed = norm_rows(&self.pool, x, rows, |row| row, (norm, eps), normed);
        let Mixture { shape, weights } = mixture;
        moe::cpu::moe(&self.pool, shape, weights, normed, out.rows_mut(rows), rounded, work);
    }

    fn logits(&mut self, x: &Tensor, norm: &Vec<f32>, eps: f32, head: &Matrix, out: &mut Tensor) {
        let wanted = &self.step.logit_rows;
        let Work { normed, rounded, .. } = &mut self.work;
        let row_of = |row: usize| wanted[row];
        let normed = norm_rows(&self.pool, x, wanted.len(), row_of, (norm, eps), normed);
        let inputs = Inputs::new(&self.pool, normed, x.cols, &[head], rounded);
        let stride = out.cols;
        linear(&self.pool, &inputs, &[head], out.rows_mut(wanted.len()), stride, false);
    }

    fn sample(
        &mut self,
        logits: &mut Tensor,
        vocab: usize,
        rows: &[SampleRow],
    ) -> Vec<Option<Choice>> {
        let cols = logits.cols;
        let logits = logits.rows_mut(rows.len()).chunks_exact_mut(cols);
        rows.iter().zip(logits).map(|(row, logits)| choose(row, &mut logits[..vocab])).collect()
    }

    /// A step is over when it returns, so there is nothing to overlap.
    fn gains_by_running_ahead(&self) -> bool {
        false
    }

    fn start_sample(&mut self, logits: &mut Tensor, vocab: usize, rows: &[SampleRow]) {
        let pick =
            |choice: Option<Choice>| choice.map_or(Pick::Nothing, |it| Pick::Token(it.token));
        self.last_picks = self.sample(logits, vocab, rows).into_iter().map(pick).collect();
        self.picks.push_back(self.last_picks.clone());
    }

    fn finish_sample(&mut self) -> Vec<Pick> {
        self.picks.pop_front().expect("somebody asked before")
    }
}
