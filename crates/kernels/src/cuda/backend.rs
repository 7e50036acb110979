//! The device as a [`Backend`]: which launch each operation is.

use std::slice::from_ref;
use std::sync::Arc;

use half::f16;

use super::buffer::Buffer;
use super::card::StepCapacity;
use super::context::Context;
use super::graph::Graphs;
use super::launch::{Grid, Launch};
use super::step::Step;
use crate::backend::{Backend, Begun, KvShape, LaunchTime, StepInputs};
use crate::fault::DeviceFault;
use crate::gated_delta_rule::cuda::Chunks;
use crate::gated_delta_rule::{DeltaLayer, DeltaState};
pub use crate::linear::cuda::Matrix;
use crate::linear::cuda::{Input, Place, Scratch, Widest};
pub use crate::moe::cuda::Mixture;
use crate::moe::{MoeShape, MoeWeights};
use crate::paged_attention::AttentionLayer;
pub use crate::paged_attention::cuda::KvCache;
use crate::paged_attention::cuda::Parts;
use crate::quant::WeightType;
use crate::sample::{Choice, Pick, SampleRow};
use crate::weight::Weight;
use crate::{embed, gated_delta_rule, linear, moe, paged_attention, rms_norm, sample, swiglu};

/// One card with one rank of one model.
pub struct Cuda {
    pub(crate) context: Arc<Context>,
    pub(crate) step: Step,
    /// What linear layers share.
    pub(crate) linear: Scratch,
    /// Normed rows, of which experts are chosen and made.
    normed: Buffer<f32>,
    normed_cols: usize,
    /// What attention leaves between its parts.
    pub(crate) attention: Parts,
    /// Room for chunks of linear attention, and which ones the step has.
    pub(crate) chunks: Chunks,
    /// Room for mixtures of experts, if the model has any.
    experts: Option<moe::cuda::Scratch>,
    sampler: Option<sample::cuda::Sampler>,
    graphs: Graphs,
    /// Whether the next step is timed.
    times_step: bool,
    widest: Widest,
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
    /// A backend for steps of at most `capacity`.
    pub fn new(context: &Arc<Context>, capacity: StepCapacity) -> Self {
        Self {
            context: context.clone(),
            step: Step::new(context, capacity),
            linear: Scratch::new(context, 0, Widest::default()),
            normed: Buffer::new(context, "normed rows", 0),
            normed_cols: 0,
            attention: Parts::new(context, capacity.sequences),
            chunks: Chunks::new(context, capacity),
            experts: None,
            sampler: Some(sample::cuda::Sampler::new(context, capacity.sequences)),
            graphs: Graphs::new(context),
            times_step: false,
            widest: Widest::default(),
        }
    }

    /// Runs every step launch by launch: for ranks that exchange sums on the way, and for tests.
    pub fn without_graphs(mut self) -> Self {
        self.graphs.disable();
        self
    }

    /// Whether steps of many rows are multiplied by cuBLASLt; where it cannot be opened, they take
    /// several times as long.
    pub fn has_library(&self) -> bool {
        self.linear.has_library()
    }

    /// How many sizes of steps are recorded.
    pub fn recorded_sizes(&self) -> usize {
        self.graphs.recorded()
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
    type Mixture = Mixture;

    fn matrix_bytes(ty: WeightType, rows: usize, cols: usize) -> u64 {
        Matrix::bytes_of(ty, rows, cols)
    }

    /// Beyond a MiB the driver gives whole pages of two (seen on an H100).
    fn buffer_bytes(bytes: u64) -> u64 {
        if bytes > 1 << 20 { bytes.next_multiple_of(2 << 20) } else { bytes }
    }

    fn matrix(&mut self, weight: &Weight) -> Matrix {
        let matrix = Matrix::new(&self.context, weight);
        self.widest.include(&matrix);
        matrix
    }

    fn vector(&mut self, values: &[f32]) -> Buffer<f32> {
        Buffer::of(&self.context, "weights", values)
    }

    fn mixture(&mut self, shape: &MoeShape, weights: &MoeWeights<Weight>) -> Mixture {
        self.normed_cols = self.normed_cols.max(weights.router.cols);
        let mixture = Mixture::new(self, shape, weights);
        mixture.matrices().for_each(|matrix| self.widest.include(matrix));
        if self.experts.is_none() {
            // All layers of a model are alike.
            self.experts = Some(mixture.scratch(&self.context, self.step.capacity().rows));
        }
        mixture
    }

    fn tensor(&mut self, max_rows: usize, cols: usize) -> Tensor {
        let values = Buffer::zeroed(&self.context, "activations", max_rows * cols);
        Tensor { values, cols }
    }

    fn kv_cache(&mut self, shape: KvShape) -> KvCache {
        self.attention.make_room_for(&shape);
        KvCache::new(&self.context, shape)
    }

    fn state(&mut self, slots: usize, elements: usize) -> State {
        let values = Buffer::zeroed(&self.context, "recurrent state", slots * elements);
        State { values, elements }
    }

    fn ready(&mut self) -> Result<(), DeviceFault> {
        let rows = self.step.capacity().rows;
        self.linear = Scratch::new(&self.context, rows, self.widest);
        self.normed = Buffer::new(&self.context, "normed rows", rows * self.normed_cols);
        self.attention.take();
        self.chunks.take_room();
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

    fn block_bytes(&self, cache: &KvCache) -> usize {
        2 * size_of::<f16>() * KvCache::block_elements(&cache.shape)
    }

    fn state_bytes(&self, state: &State) -> usize {
        size_of::<f32>() * state.elements
    }

    fn save_block(&mut self, cache: &KvCache, block: usize, bytes: &mut [u8]) {
        let size = KvCache::block_elements(&cache.shape);
        let (keys, values) = bytes.split_at_mut(bytes.len() / 2);
        cache.keys.save(block * size, keys);
        cache.values.save(block * size, values);
    }

    fn load_block(&mut self, cache: &mut KvCache, block: usize, bytes: &[u8]) {
        let size = KvCache::block_elements(&cache.shape);
        let (keys, values) = bytes.split_at(bytes.len() / 2);
        cache.keys.load(block * size, keys);
        cache.values.load(block * size, values);
    }

    fn save_state(&mut self, state: &State, slot: usize, bytes: &mut [u8]) {
        state.values.save(slot * state.elements, bytes);
    }

    fn load_state(&mut self, state: &mut State, slot: usize, bytes: &[u8]) {
        state.values.load(slot * state.elements, bytes);
    }

    fn begin_step(&mut self, inputs: StepInputs) -> Begun {
        self.context.bind();
        self.chunks.begin(&inputs);
        let sampler = self.sampler.as_ref().expect("only `sample` puts it away");
        let chosen = inputs.ahead.then(|| sampler.tokens());
        if std::mem::take(&mut self.times_step) {
            self.context.start_timing();
        }
        self.step.begin(inputs, chosen);
        self.graphs.begin(self.step.size)
    }

    fn end_step(&mut self) {
        self.graphs.end();
    }

    fn time_next_step(&mut self) {
        self.times_step = true;
    }

    fn launch_times(&mut self) -> Vec<LaunchTime> {
        self.context.launch_times()
    }

    fn read(&mut self, tensor: &Tensor, rows: usize) -> Vec<f32> {
        assert!(!self.graphs.is_recording(), "a recorded step cannot be read on the way");
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
        let input = Input { norm: Some((norm, eps)), ..Input::of(x) };
        linear::cuda::linear(self, &input, self.rows(), parts, out, Place::START);
    }

    fn project(&mut self, x: &Tensor, matrix: &Matrix, out: &mut Tensor) {
        let (input, matrix) = (Input::of(x), from_ref(matrix));
        linear::cuda::linear(self, &input, self.rows(), matrix, out, Place::START);
    }

    fn project_add(&mut self, x: &Tensor, matrix: &Matrix, residual: &mut Tensor) {
        let (input, matrix) = (Input::of(x), from_ref(matrix));
        let place = Place { add: true, ..Place::START };
        linear::cuda::linear(self, &input, self.rows(), matrix, residual, place);
    }

    fn feed_forward(
        &mut self,
        x: &mut Tensor,
        norm: (&Buffer<f32>, f32),
        gate_up: &[Matrix; 2],
        down: &Matrix,
        products: &mut Tensor,
        activated: &mut Tensor,
    ) {
        let rows = self.rows();
        let input = Input { norm: Some(norm), ..Input::of(x) };
        if linear::cuda::gate_up(self, &input, rows, gate_up, activated) {
            return self.project_add(activated, down, x);
        }
        linear::cuda::linear(self, &input, rows, gate_up, products, Place::START);
        let place = Place { add: true, ..Place::START };
        linear::cuda::linear(self, &Input::gated(products), rows, from_ref(down), x, place);
    }

    fn add(&mut self, x: &Tensor, residual: &mut Tensor) {
        linear::cuda::add(self, x, residual);
    }

    fn attention(
        &mut self,
        layer: &AttentionLayer<Buffer<f32>>,
        projected: &mut Tensor,
        cache: &mut KvCache,
        out: &mut Tensor,
    ) {
        paged_attention::cuda::attention(self, layer, projected, cache, out);
    }

    fn delta_layer(&mut self, layer: DeltaLayer<Vec<f32>>) -> DeltaLayer<Buffer<f32>> {
        if let Some(reason) = gated_delta_rule::cuda::unsupported(&layer) {
            self.context.fail(DeviceFault::Unusable(reason));
        }
        self.chunks.expect(&layer.shape);
        layer.map(|values| self.vector(&values))
    }

    fn delta_net(
        &mut self,
        layer: &DeltaLayer<Buffer<f32>>,
        projected: &mut Tensor,
        state: &mut DeltaState<State>,
        out: &mut Tensor,
    ) {
        gated_delta_rule::cuda::delta_net(self, layer, projected, state, out);
    }

    fn swiglu(&mut self, gate_up: &Tensor, out: &mut Tensor) {
        swiglu::cuda::swiglu(self, gate_up, out);
    }

    fn moe(
        &mut self,
        mixture: &Mixture,
        x: &Tensor,
        (norm, eps): (&Buffer<f32>, f32),
        out: &mut Tensor,
    ) {
        let rows = self.rows();
        rms_norm::cuda::rms_norm(self, &x.values, None, norm, eps, rows, &self.normed);
        let mut scratch = self.experts.take().expect("a mixture was taken over");
        moe::cuda::moe(self, mixture, &self.normed, &mut scratch, out);
        self.experts = Some(scratch);
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
        let input = Input { rows_of: wanted, norm: Some((norm, eps)), ..Input::of(x) };
        linear::cuda::linear(self, &input, rows, from_ref(head), out, Place::START);
    }

    fn sample(
        &mut self,
        logits: &mut Tensor,
        vocab: usize,
        rows: &[SampleRow],
    ) -> Vec<Option<Choice>> {
        let mut sampler = self.sampler.take().expect("only this puts it away, for as long");
        let choices = sample::cuda::sample(self, &mut sampler, logits, vocab, rows);
        self.sampler = Some(sampler);
        choices
    }

    /// Recorded steps do; without recordings the host is what takes the time.
    fn gains_by_running_ahead(&self) -> bool {
        self.graphs.are_enabled()
    }

    fn start_sample(&mut self, logits: &mut Tensor, vocab: usize, rows: &[SampleRow]) {
        let mut sampler = self.sampler.take().expect("only this puts it away, for as long");
        sampler.start(self, logits, vocab, rows);
        self.sampler = Some(sampler);
    }

    fn finish_sample(&mut self) -> Vec<Pick> {
        let sampler = self.sampler.as_mut().expect("only `sample` puts it away");
        sampler.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What NVML showed of 64 buffers of each size.
    #[test]
    fn a_large_buffer_takes_whole_pages() {
        let (kib, mib) = (1 << 10, 1 << 20);
        for (asked, taken) in [
            (64 * kib, 64 * kib),
            (mib, mib),
            (mib + 4096, 2 * mib),
            (3 * mib, 4 * mib),
            (8 * mib + 4096, 10 * mib),
            (33 * mib + 100, 34 * mib),
        ] {
            assert_eq!(Cuda::buffer_bytes(asked), taken, "{asked}");
        }
    }
}
