//! What a device must offer so that a model runs on it.

use crate::fault::DeviceFault;
use crate::gated_delta_rule::{DeltaLayer, DeltaState};
use crate::moe::{MoeShape, MoeWeights};
use crate::paged_attention::AttentionLayer;
use crate::quant::WeightType;
use crate::sample::{Choice, Pick, SampleRow};
use crate::weight::Weight;

/// One sequence's rows of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    /// The first of its rows in the step.
    pub first_row: usize,
    /// How many rows: tokens computed in this step.
    pub rows: usize,
    /// Tokens computed before; at 0 recurrent state starts from zero.
    pub start: usize,
    /// Its KV blocks in order.
    pub blocks: Vec<u32>,
    /// Its slot in the recurrent state pools.
    pub slot: usize,
}

/// A step as the device needs it: rows of all sequences, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepInputs {
    /// Token ids, `[rows]`.
    pub tokens: Vec<u32>,
    /// Which rows belong to whom; in row order, without gaps.
    pub sequences: Vec<SequenceRows>,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<usize>,
    /// Row `i`'s token is what the last [`Backend::start_sample`] chose for its row `i`, and what
    /// `tokens` holds does not count. Every sequence has one row.
    pub ahead: bool,
}

impl StepInputs {
    /// Rows of the step.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }
}

/// Bytes that a backend keeps of an element of a key or value: half precision, unless it was told
/// otherwise.
pub const KV_ELEMENT_BYTES: u64 = 2;

/// What is left to do of a step that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Its operations, then [`Backend::end_step`].
    Compute,
    /// Only to sample: the device plays the recorded operations of a step of this size.
    Replayed,
}

/// How long something took on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaunchTime {
    /// The kernel.
    pub name: &'static str,
    /// From the end of what was launched before.
    pub seconds: f64,
}

/// Size of one layer's key-value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Blocks in all.
    pub blocks: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// Key-value heads of this rank.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// A device: memory taken at load, and operations over it.
///
/// [`Backend::begin_step`] sets the step that all operations work on; a device may have it
/// recorded, and then the operations are left out. A backend runs one model. Activations are
/// [`Backend::Tensor`]s with room for the largest step; an operation touches the step's rows.
/// A row's result depends on nothing else in the step but how it is rounded: on the CPU every
/// operation computes a row by the same arithmetic, so batching and chunking change no bit; a card
/// may take another kernel for many rows than for few.
pub trait Backend: Send + 'static {
    /// Activations `[max_rows, cols]`.
    type Tensor: Send;
    /// A weight matrix in the layout that the device likes.
    type Matrix: Send;
    /// A small f32 weight.
    type Vector: Send;
    /// One layer's keys and values, in blocks.
    type KvCache: Send;
    /// One layer's recurrent state, in slots.
    type State: Send;
    /// One layer's mixture of experts, in the layout that the device likes.
    type Mixture: Send;

    /// Bytes that a weight matrix of this format and size takes once it is taken over.
    fn matrix_bytes(ty: WeightType, rows: usize, cols: usize) -> u64;
    /// Bytes of the device that a buffer of so many bytes takes.
    fn buffer_bytes(bytes: u64) -> u64 {
        bytes
    }
    /// Takes a weight matrix over.
    fn matrix(&mut self, weight: &Weight) -> Self::Matrix;
    /// Takes a small weight over.
    fn vector(&mut self, values: &[f32]) -> Self::Vector;
    /// Takes a mixture of experts over.
    fn mixture(&mut self, shape: &MoeShape, weights: &MoeWeights<Weight>) -> Self::Mixture;
    /// Room for activations.
    fn tensor(&mut self, max_rows: usize, cols: usize) -> Self::Tensor;
    /// Room for one layer's keys and values.
    fn kv_cache(&mut self, shape: KvShape) -> Self::KvCache;
    /// Room for one layer's recurrent state: `slots` times `elements` f32.
    fn state(&mut self, slots: usize, elements: usize) -> Self::State;

    /// All that the model needs has been taken: the backend takes what it needs for itself.
    ///
    /// # Errors
    /// When not all of it could be had.
    fn ready(&mut self) -> Result<(), DeviceFault> {
        Ok(())
    }

    /// The first thing that went wrong; results since then mean nothing.
    fn fault(&self) -> Option<DeviceFault> {
        None
    }

    /// Copies block `from` of a layer's keys and values to block `to`.
    fn copy_block(&mut self, cache: &mut Self::KvCache, from: usize, to: usize);
    /// Copies slot `from` of a layer's recurrent state to slot `to`.
    fn copy_state(&mut self, state: &mut Self::State, from: usize, to: usize);

    /// Bytes of one block of a layer's keys and values, as [`Backend::save_block`] writes them.
    fn block_bytes(&self, cache: &Self::KvCache) -> usize;
    /// Bytes of one slot of a layer's recurrent state, as [`Backend::save_state`] writes them.
    fn state_bytes(&self, state: &Self::State) -> usize;
    /// Copies a block to the host: `bytes` has [`Backend::block_bytes`] of room, and what they mean
    /// is the backend's own affair.
    fn save_block(&mut self, cache: &Self::KvCache, block: usize, bytes: &mut [u8]);
    /// Puts back what [`Backend::save_block`] wrote, in any block: every bit as it was.
    fn load_block(&mut self, cache: &mut Self::KvCache, block: usize, bytes: &[u8]);
    /// Copies a slot to the host: `bytes` has [`Backend::state_bytes`] of room.
    fn save_state(&mut self, state: &Self::State, slot: usize, bytes: &mut [u8]);
    /// Puts back what [`Backend::save_state`] wrote, in any slot: every bit as it was.
    fn load_state(&mut self, state: &mut Self::State, slot: usize, bytes: &[u8]);

    /// Sets the step that the following operations work on.
    fn begin_step(&mut self, inputs: StepInputs) -> Begun;
    /// All operations of the step have been called, except sampling.
    fn end_step(&mut self) {}
    /// Takes the time of every launch of the step that begins next and of its choices, if the
    /// device can tell; that step is slower for it.
    fn time_next_step(&mut self) {}
    /// What [`Self::time_next_step`] has found since, in order: nothing where it cannot tell.
    fn launch_times(&mut self) -> Vec<LaunchTime> {
        Vec::new()
    }
    /// Copies the first `rows` rows to the host, `[rows, cols]`.
    fn read(&mut self, tensor: &Self::Tensor, rows: usize) -> Vec<f32>;
    /// Overwrites the first rows from the host; `values.len()` is a multiple of the columns.
    fn write(&mut self, tensor: &mut Self::Tensor, values: &[f32]);

    /// `out[row] = table[token of row]`, zeros where the table has no such row.
    fn embed(&mut self, table: &Self::Matrix, out: &mut Self::Tensor);

    /// `out = rms_norm(x, norm, eps) · [parts]ᵀ`, the parts side by side.
    fn norm_project(
        &mut self,
        x: &Self::Tensor,
        norm: &Self::Vector,
        eps: f32,
        parts: &[Self::Matrix],
        out: &mut Self::Tensor,
    );

    /// `out = x · matrixᵀ`.
    fn project(&mut self, x: &Self::Tensor, matrix: &Self::Matrix, out: &mut Self::Tensor);

    /// `residual += x · matrixᵀ`.
    fn project_add(&mut self, x: &Self::Tensor, matrix: &Self::Matrix, residual: &mut Self::Tensor);

    /// `x += (silu(gate) * up) · downᵀ` with
    /// `[gate | up] = rms_norm(x, norm.0, norm.1) · [gate_up]ᵀ`.
    /// `products`, as wide as both, and `activated` are scratch, which a device may leave as it is.
    fn feed_forward(
        &mut self,
        x: &mut Self::Tensor,
        norm: (&Self::Vector, f32),
        gate_up: &[Self::Matrix; 2],
        down: &Self::Matrix,
        products: &mut Self::Tensor,
        activated: &mut Self::Tensor,
    ) {
        self.norm_project(x, norm.0, norm.1, gate_up, products);
        self.swiglu(products, activated);
        self.project_add(activated, down, x);
    }

    /// `residual += x`.
    fn add(&mut self, x: &Self::Tensor, residual: &mut Self::Tensor);

    /// What lies between an attention layer's projections: norms and rotation of queries and keys,
    /// keys and values into their blocks, and causal attention of the step's queries over all
    /// their keys. May overwrite `projected`.
    fn attention(
        &mut self,
        layer: &AttentionLayer<Self::Vector>,
        projected: &mut Self::Tensor,
        cache: &mut Self::KvCache,
        out: &mut Self::Tensor,
    );

    /// Takes the small weights of a delta-rule layer over, and makes room for what it needs on its
    /// way.
    fn delta_layer(&mut self, layer: DeltaLayer<Vec<f32>>) -> DeltaLayer<Self::Vector>;

    /// What lies between a delta-rule layer's projections: convolution and SiLU over `[q | k | v]`,
    /// the gated delta rule, and the gated norm. May overwrite `projected`.
    fn delta_net(
        &mut self,
        layer: &DeltaLayer<Self::Vector>,
        projected: &mut Self::Tensor,
        state: &mut DeltaState<Self::State>,
        out: &mut Self::Tensor,
    );

    /// `out = silu(gate) * up` with `gate_up = [gate | up]`.
    fn swiglu(&mut self, gate_up: &Self::Tensor, out: &mut Self::Tensor);

    /// `out = mixture(rms_norm(x, norm.0, norm.1))`; the experts are in [`crate::moe`].
    fn moe(
        &mut self,
        mixture: &Self::Mixture,
        x: &Self::Tensor,
        norm: (&Self::Vector, f32),
        out: &mut Self::Tensor,
    );

    /// Logits of the step's `logit_rows`: `out[i] = rms_norm(x[logit_rows[i]]) · headᵀ`.
    fn logits(
        &mut self,
        x: &Self::Tensor,
        norm: &Self::Vector,
        eps: f32,
        head: &Self::Matrix,
        out: &mut Self::Tensor,
    );

    /// Chooses a token for each of the first `rows.len()` rows of logits; `None` where a row is
    /// not finite. Logits of ids at or above `vocab` are never chosen.
    fn sample(
        &mut self,
        logits: &mut Self::Tensor,
        vocab: usize,
        rows: &[SampleRow],
    ) -> Vec<Option<Choice>>;

    /// Whether the device gains by a step that is queued before the one before has been read.
    fn gains_by_running_ahead(&self) -> bool;

    /// As [`Self::sample`] for rows that are plain ([`SampleRow::is_plain`]), without waiting for
    /// the outcome. At most two batches are under way.
    fn start_sample(&mut self, logits: &mut Self::Tensor, vocab: usize, rows: &[SampleRow]);

    /// What came of the oldest batch that [`Self::start_sample`] began and nobody asked for yet.
    fn finish_sample(&mut self) -> Vec<Pick>;
}
