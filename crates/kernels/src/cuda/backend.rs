//! The device as a [`Backend`]: which launch each operation is.

use std::sync::Arc;

use super::buffer::Buffer;
use super::context::Context;
use super::launch::{Grid, Launch};
use super::step::{Step, StepCapacity};
use crate::backend::{Backend, Begun, KvShape, StepInputs};
use crate::causal_conv1d::ConvShape;
use crate::fault::DeviceFault;
use crate::gated_delta_rule::DeltaShape;
pub use crate::linear::cuda::Matrix;
use crate::linear::cuda::Place;
use crate::moe::{MoeShape, MoeWeights};
use crate::paged_attention::AttentionShape;
pub use crate::paged_attention::cuda::KvCache;
use crate::sample::SampleRow;
use crate::weight::Weight;
use crate::{
    causal_conv1d, embed, gated_delta_rule, gated_norm, linear, paged_attention, rms_norm, rope_kv,
    swiglu,
};

/// One card with one rank of one model.
pub struct Cuda {
    pub(crate) context: Arc<Context>,
    pub(crate) step: Step,
    /// Normed rows, the operand of the products that follow.
    pub(crate) normed: Buffer<f32>,
    /// The widest row that is ever normed.
    widest: usize,
}

/// Activations `[max_rows, cols]`.
pub struct Tensor {
    pub(crate) values: Buffer<f32>,
    pub(crate) cols: usize,
}

/// Recurrent state `[slots, elements]`.
pub struct State {
    pub(crate) values: Buffer<f32>,
    pub(crate) elements: usize,
}

impl Cuda {
    /// A backend on card `ordinal` for steps of at most `capacity`.
    ///
    /// # Errors
    /// Why the card cannot be used.
    pub fn open(ordinal: u32, capacity: StepCapacity) -> Result<Self, DeviceFault> {
        let context = Context::open(ordinal)?;
        let step = Step::new(&context, capacity);
        let normed = Buffer::new(&context, "normed rows", 0);
        Ok(Self { context, step, normed, widest: 0 })
    }

    /// Rows of the step, padding included.
    pub(crate) fn rows(&self) -> usize {
        self.step.size.rows
    }

    /// Prepares a launch.
    pub(crate) fn launch(&self, name: &'static str, grid: Grid) -> Launch<'_> {
        self.context.launch(name, grid)
    }
}

impl Backend for Cuda {
    type Tensor = Tensor;
    type Matrix = Matrix;
    type Vector = Buffer<f32>;
    type KvCache = KvCache;
    type State = State;

    fn matrix(&mut self, weight: &Weight) -> Matrix {
        self.widest = self.widest.max(weight.cols);
        Matrix::new(&self.context, weight)
    }

    fn vector(&mut self, values: &[f32]) -> Buffer<f32> {
        Buffer::of(&self.context, "weights", values)
    }

    fn tensor(&mut self, max_rows: usize, cols: usize) -> Tensor {
        let values = Buffer::zeroed(&self.context, "activations", max_rows * cols);
        Tensor { values, cols }
    }

    fn kv_cache(&mut self, shape: KvShape) -> KvCache {
        KvCache::new(&self.context, shape)
    }

    fn state(&mut self, slots: usize, elements: usize) -> State {
        let values = Buffer::zeroed(&self.context, "recurrent state", slots * elements);
        State { values, elements }
    }

    fn ready(&mut self) -> Result<(), DeviceFault> {
        let rows = self.step.capacity().rows;
        self.normed = Buffer::new(&self.context, "normed rows", rows * self.widest);
        self.context.synchronize();
        self.fault().map_or(Ok(()), Err)
    }

    fn fault(&self) -> Option<DeviceFault> {
        self.context.fault()
    }

    fn copy_block(&mut self, cache: &mut KvCache, from: usize, to: usize) {
        cache.copy_block(from, to);
    }

    fn copy_state(&mut self, state: &mut State, from: usize, to: usize) {
        let size = state.elements;
        state.values.copy_within(from * size, to * size, size);
    }

    fn begin_step(&mut self, inputs: StepInputs) -> Begun {
        self.context.bind();
        self.step.begin(&inputs);
        Begun::Compute
    }

    fn read(&mut self, tensor: &Tensor, rows: usize) -> Vec<f32> {
        tensor.values.get(0..rows * tensor.cols)
    }

    fn write(&mut self, tensor: &mut Tensor, values: &[f32]) {
        tensor.values.put(0, values);
    }

    fn embed(&mut self, table: &Matrix, out: &mut Tensor) {
        embed::cuda::embed(self, table, self.step.tokens(), out);
    }

    fn norm_project(
        &mut self,
        x: &Tensor,
        norm: &Buffer<f32>,
        eps: f32,
        parts: &[Matrix],
        out: &mut Tensor,
    ) {
        let rows = self.rows();
        rms_norm::cuda::rms_norm(self, &x.values, None, norm, eps, rows, &self.normed);
        let mut first_col = 0;
        for part in parts {
            let place = Place { first_col, add: false };
            linear::cuda::linear(self, &self.normed, part, rows, out, place);
            first_col += part.rows;
        }
        assert_eq!(first_col, out.cols, "the parts fill the columns");
    }

    fn project(&mut self, x: &Tensor, matrix: &Matrix, out: &mut Tensor) {
        let place = Place { first_col: 0, add: false };
        linear::cuda::linear(self, &x.values, matrix, self.rows(), out, place);
    }

    fn project_add(&mut self, x: &Tensor, matrix: &Matrix, residual: &mut Tensor) {
        let place = Place { first_col: 0, add: true };
        linear::cuda::linear(self, &x.values, matrix, self.rows(), residual, place);
    }

    fn add(&mut self, x: &Tensor, residual: &mut Tensor) {
        linear::cuda::add(self, x, residual);
    }

    fn rope_kv(
        &mut self,
        shape: &AttentionShape,
        qkv: &mut Tensor,
        norms: (&Buffer<f32>, &Buffer<f32>),
        cache: &mut KvCache,
    ) {
        rope_kv::cuda::rope_kv(self, shape, qkv, norms, cache);
    }

    fn attention(
        &mut self,
        shape: &AttentionShape,
        qkv: &Tensor,
        cache: &KvCache,
        out: &mut Tensor,
    ) {
        paged_attention::cuda::attention(self, shape, qkv, cache, out);
    }

    fn causal_conv1d(
        &mut self,
        shape: &ConvShape,
        x: &mut Tensor,
        taps: &Buffer<f32>,
        state: &mut State,
    ) {
        causal_conv1d::cuda::causal_conv1d(self, shape, x, taps, state);
    }

    fn gated_delta_rule(
        &mut self,
        shape: &DeltaShape,
        projected: &Tensor,
        decay: &Buffer<f32>,
        dt_bias: &Buffer<f32>,
        state: &mut State,
        out: &mut Tensor,
    ) {
        gated_delta_rule::cuda::gated_delta_rule(
            self, shape, projected, decay, dt_bias, state, out,
        );
    }

    fn gated_norm(
        &mut self,
        shape: &DeltaShape,
        projected: &Tensor,
        weight: &Buffer<f32>,
        eps: f32,
        x: &mut Tensor,
    ) {
        gated_norm::cuda::gated_norm(self, shape, projected, weight, eps, x);
    }

    fn swiglu(&mut self, gate_up: &Tensor, out: &mut Tensor) {
        swiglu::cuda::swiglu(self, gate_up, out);
    }

    fn moe(
        &mut self,
        _shape: &MoeShape,
        _x: &Tensor,
        _norm: (&Buffer<f32>, f32),
        _weights: &MoeWeights<Matrix>,
        _out: &mut Tensor,
    ) {
        let reason = "mixtures of experts do not run on cards yet".to_owned();
        self.context.fail(DeviceFault::Unusable(reason));
    }

    fn logits(
        &mut self,
        x: &Tensor,
        norm: &Buffer<f32>,
        eps: f32,
        head: &Matrix,
        out: &mut Tensor,
    ) {
        let rows = self.step.size.logit_rows;
        let wanted = Some(self.step.logit_rows());
        rms_norm::cuda::rms_norm(self, &x.values, wanted, norm, eps, rows, &self.normed);
        let place = Place { first_col: 0, add: false };
        linear::cuda::linear(self, &self.normed, head, rows, out, place);
    }

    fn sample(
        &mut self,
        logits: &mut Tensor,
        vocab: usize,
        rows: &[SampleRow],
    ) -> Vec<Option<u32>> {
        let cols = logits.cols;
        let mut values = logits.values.get(0..rows.len() * cols);
        let logits = values.chunks_exact_mut(cols);
        (rows.iter().zip(logits))
            .map(|(row, logits)| crate::sample::choose(row, &mut logits[..vocab]))
            .collect()
    }
}
