//! A delta-rule layer between its projections, on a card.
//!
//! Sequences with few rows go token by token, in one launch; others by chunks of 64 tokens, whose
//! operands are f16 (see `chunk.cuh`).

use std::sync::Arc;

use half::f16;

use super::chunks::{self, CHUNK, Panel, SHORT};
use super::{DeltaLayer, DeltaShape, DeltaState, HeadOrder};
use crate::backend::StepInputs;
use crate::cuda::{Buffer, Card, Context, Cuda, Grid, State, StepCapacity, Tensor};
use crate::{causal_conv1d, gated_norm};

/// Elements of a head that the chunked kernels are written for.
const DIM: usize = 128;

/// Bytes of a stage of the scan's ring: queries, keys, two squares, half the values and factors, up
/// to a multiple of 1024.
const STAGE: usize = (2 * CHUNK * DIM * 2 + 2 * CHUNK * CHUNK * 2 + CHUNK * DIM + 2 * CHUNK * 4)
    .next_multiple_of(1024);

/// What else the scan takes of shared memory: barriers, and room to align the ring.
const SCAN_REST: usize = 2048;

/// What is computed of a step's chunks ahead of the state, and which chunks there are.
///
/// One layer's operands at a time: the launches of a stream follow each other.
pub(crate) struct Chunks {
    context: Arc<Context>,
    tiles: usize,
    key_heads: usize,
    value_heads: usize,
    /// `[tile][key_head]` tiles of 64 tokens and 128 elements, in the kernels' order.
    pub(crate) queries: Buffer<f16>,
    pub(crate) keys: Buffer<f16>,
    /// `[tile][value_head]` tiles.
    pub(crate) values: Buffer<f16>,
    inverses: Buffer<f16>,
    scores: Buffer<f16>,
    factors: Buffer<f32>,
    panels: Vec<Panel>,
    has_short: bool,
}

impl Chunks {
    pub(crate) fn new(context: &Arc<Context>, capacity: StepCapacity) -> Self {
        let none = || Buffer::new(context, "chunks", 0);
        Self {
            context: context.clone(),
            tiles: chunks::tiles(capacity.rows),
            key_heads: 0,
            value_heads: 0,
            queries: none(),
            keys: none(),
            values: none(),
            inverses: none(),
            scores: none(),
            factors: Buffer::new(context, "chunks", 0),
            panels: Vec::new(),
            has_short: false,
        }
    }

    /// Says that layers of this shape will come.
    pub(crate) fn expect(&mut self, shape: &DeltaShape) {
        if shape.key_dim == DIM {
            self.key_heads = self.key_heads.max(shape.key_heads);
            self.value_heads = self.value_heads.max(shape.value_heads);
        }
    }

    /// Takes memory for all layers that were announced.
    pub(crate) fn take_room(&mut self) {
        let room = |heads, elements| {
            Buffer::new(&self.context, "chunks of linear attention", self.tiles * heads * elements)
        };
        self.queries = room(self.key_heads, CHUNK * DIM);
        self.keys = room(self.key_heads, CHUNK * DIM);
        self.values = room(self.value_heads, CHUNK * DIM);
        self.inverses = room(self.value_heads, CHUNK * CHUNK);
        self.scores = room(self.value_heads, CHUNK * CHUNK);
        let factors = self.tiles * self.value_heads * 2 * CHUNK;
        self.factors = Buffer::new(&self.context, "chunks of linear attention", factors);
    }

    /// Cuts the rows of the step that begins.
    pub(crate) fn begin(&mut self, inputs: &StepInputs) {
        self.has_short = inputs.sequences.iter().any(|sequence| sequence.rows <= SHORT);
        self.panels = chunks::panels(&inputs.sequences, self.tiles);
    }
}

/// Why a layer cannot run on a card, if so.
pub(crate) fn unsupported<V>(layer: &DeltaLayer<V>) -> Option<String> {
    let DeltaShape { key_dim, value_dim, .. } = layer.shape;
    if key_dim != value_dim || ![32, 64, DIM].contains(&key_dim) {
        return Some(format!(
            "linear attention with keys of {key_dim} and values of {value_dim} elements does not \
             run on cards: both must be 32, 64 or 128"
        ));
    }
    (layer.conv.taps != 4).then(|| {
        let taps = layer.conv.taps;
        format!("a convolution of {taps} taps does not run on cards: it must have 4")
    })
}

/// What lies between a delta-rule layer's projections.
pub(crate) fn delta_net(
    cuda: &Cuda,
    layer: &DeltaLayer<Buffer<f32>>,
    projected: &Tensor,
    state: &mut DeltaState<State>,
    out: &mut Tensor,
) {
    let shape = &layer.shape;
    assert_eq!(state.memory.elements, shape.state_elements());
    assert_eq!(state.conv.elements, layer.conv.state_elements());
    assert_eq!(out.cols, shape.value_cols());
    // The chunked kernels read four columns at once.
    let by_chunks = shape.key_dim == DIM && projected.cols.is_multiple_of(4);
    let most_rows = if by_chunks { SHORT } else { i32::MAX as usize };
    if !by_chunks || cuda.chunks.has_short {
        recurrent(cuda, layer, projected, state, out, most_rows);
    }
    if by_chunks {
        for panel in &cuda.chunks.panels {
            causal_conv1d::cuda::prepare(cuda, layer, projected, &state.conv, panel);
            solve(cuda, layer, projected, panel);
            scan(cuda, shape, &state.memory, out, panel);
            gated_norm::cuda::gated_norm(cuda, layer, projected, out, panel);
        }
    }
    if cuda.step.size.most_rows > 1 {
        causal_conv1d::cuda::keep(cuda, &layer.conv, projected, &state.conv);
    }
}

/// The token-by-token kernel and its grid: a block for each head and sequence. A warp owns eight
/// rows of a state.
fn recurrent_kernel(key_dim: usize, most_rows: usize) -> (&'static str, u32) {
    let name = match (key_dim, most_rows) {
        (32, _) => "delta_recurrent_32",
        (64, _) => "delta_recurrent_64",
        (_, 1) => "delta_decode_128",
        _ => "delta_recurrent_128",
    };
    (name, key_dim as u32 / 8 * 32)
}

fn recurrent(
    cuda: &Cuda,
    layer: &DeltaLayer<Buffer<f32>>,
    projected: &Tensor,
    state: &DeltaState<State>,
    out: &Tensor,
    most_rows: usize,
) {
    let (shape, step) = (&layer.shape, &cuda.step);
    let (name, threads) = recurrent_kernel(shape.key_dim, most_rows.min(step.size.most_rows));
    let grid = Grid::plane(shape.value_heads as u32, step.size.sequences as u32, threads);
    cuda.launch(name, grid)
        .arg(&projected.values)
        .arg(projected.cols)
        .arg(&layer.taps)
        .arg(&layer.decay)
        .arg(&layer.dt_bias)
        .arg(&layer.norm)
        .arg(layer.eps)
        .arg(&state.conv.values)
        .arg(&state.memory.values)
        .arg(&out.values)
        .arg(step.first_row())
        .arg(step.seq_rows())
        .arg(step.start())
        .arg(step.slot())
        .arg(shape.key_heads)
        .arg(shape.value_heads)
        .arg(shape.order == HeadOrder::Tiled)
        .arg(most_rows)
        .overlapping()
        .run();
}

/// A block for each chunk and value head.
fn solve(cuda: &Cuda, layer: &DeltaLayer<Buffer<f32>>, projected: &Tensor, panel: &Panel) {
    let (shape, chunks) = (&layer.shape, &cuda.chunks);
    let blocks = [shape.value_heads as u32, panel.most_chunks() as u32, panel.count as u32];
    cuda.launch("delta_solve", Grid { blocks, threads: [128, 1, 1], shared: 0 })
        .arg(&projected.values)
        .arg(projected.cols)
        .arg(shape.b_offset())
        .arg(&layer.decay)
        .arg(&layer.dt_bias)
        .arg(&chunks.queries)
        .arg(&chunks.keys)
        .arg(&chunks.inverses)
        .arg(&chunks.scores)
        .arg(&chunks.factors)
        .arg(shape.key_heads)
        .arg(shape.value_heads)
        .arg(shape.order == HeadOrder::Tiled)
        .arg_by_value(&panel.runs)
        .overlapping()
        .run();
}

/// The scan's kernel and grid: as deep a ring as the card's shared memory has room for. Two blocks
/// share a head.
fn scan_kernel(shape: &DeltaShape, runs: usize, card: &Card) -> (&'static str, Grid) {
    let (stages, name) = match (card.shared_bytes as usize - SCAN_REST) / STAGE {
        3.. => (3, "delta_scan_3"),
        2 => (2, "delta_scan_2"),
        _ => (1, "delta_scan_1"),
    };
    let grid = Grid {
        blocks: [2, shape.value_heads as u32, runs as u32],
        threads: [128, 1, 1],
        shared: (stages * STAGE + 1024) as u32,
    };
    (name, grid)
}

fn scan(cuda: &Cuda, shape: &DeltaShape, memory: &State, out: &Tensor, panel: &Panel) {
    let chunks = &cuda.chunks;
    let (name, grid) = scan_kernel(shape, panel.count, cuda.context.card());
    cuda.launch(name, grid)
        .arg(&chunks.queries)
        .arg(&chunks.keys)
        .arg(&chunks.inverses)
        .arg(&chunks.scores)
        .arg(&chunks.factors)
        .arg(&chunks.values)
        .arg(&memory.values)
        .arg(&out.values)
        .arg(shape.key_heads)
        .arg(shape.value_heads)
        .arg(shape.order == HeadOrder::Tiled)
        .arg_by_value(&panel.runs)
        .overlapping()
        .run();
}

#[cfg(test)]
#[path = "cuda_tests.rs"]
mod tests;
