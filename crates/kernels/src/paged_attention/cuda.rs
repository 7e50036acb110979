//! Keys and values on a card, and the launches.
//!
//! Sequences with a few rows in the step go to one kernel, which splits their keys; those with many
//! to another, which takes their rows in tiles. How a sequence's keys are split depends on its own
//! length and on how many sequences, to the next power of two, the step has: one alone gets the
//! whole card, of many each gets a block or two. Within such a class a row's result is the same
//! whatever else is in the step.

use std::sync::Arc;

use half::f16;

use super::{AttentionLayer, AttentionShape};
use crate::backend::KvShape;
use crate::cuda::{Address, Buffer, Card, Context, Cuda, Grid, StepSize, Tensor};
use crate::rope_kv::cuda::{BLOCK_TOKENS, MOST_HEAD_DIM, Rotation, rope_kv, rope_kv_plain};

#[cfg(test)]
mod tests;

/// Elements of a head that the plain kernel has registers for.
const MOST_PLAIN_HEAD_DIM: usize = 512;

/// Rows of a sequence that the kernel for few rows takes.
const FEW_ROWS: usize = 16;

/// Queries of a tile of that kernel.
const QUERIES: usize = 8;

/// Elements of a result that its threads add up at a time.
const ITEM: usize = 4;

/// The most parts that a sequence's keys are split into.
const MOST_SPLITS: usize = 128;

/// Parts that a block looks at together, whether or not there are so many.
const PARTS_TOGETHER: usize = 8;

/// Parts that a long sequence may be split into even where there are many.
const LONG_SPLITS: usize = 16;

/// A part takes more turns of its block's warps than this only where there were too many parts.
const LONG_TURNS: usize = 16;

/// One layer's keys and values, each `[block][kv_head][block_size][head_dim]` in f16.
pub struct KvCache {
    pub(crate) shape: KvShape,
    pub(crate) keys: Buffer<f16>,
    pub(crate) values: Buffer<f16>,
}

impl KvCache {
    pub(crate) fn new(context: &Arc<Context>, shape: KvShape) -> Self {
        let elements = shape.blocks * Self::block_elements(&shape);
        let part = || Buffer::zeroed(context, "keys and values", elements);
        Self { shape, keys: part(), values: part() }
    }

    /// Elements of a block's keys; as many are its values.
    pub(crate) fn block_elements(shape: &KvShape) -> usize {
        shape.kv_heads * shape.block_size * shape.head_dim
    }

    pub(crate) fn copy_block(&mut self, from: usize, to: usize) {
        let size = Self::block_elements(&self.shape);
        for part in [&self.keys, &self.values] {
            part.copy_within(from * size, to * size, size);
        }
    }
}

/// Where the kernel for few rows leaves what parts of sequences computed.
pub(crate) struct Parts {
    context: Arc<Context>,
    /// Tiles of sequences that a launch takes.
    tiles: usize,
    items: usize,
    partial: Buffer<f32>,
    weight: Buffer<f32>,
}

impl Parts {
    pub(crate) fn new(context: &Arc<Context>, sequences: usize) -> Self {
        Self {
            context: context.clone(),
            tiles: sequences.max(64),
            items: 0,
            partial: Buffer::new(context, "parts of attention", 0),
            weight: Buffer::new(context, "parts of attention", 0),
        }
    }

    /// Notes that there is a cache of this shape.
    pub(crate) fn make_room_for(&mut self, shape: &KvShape) {
        let classes = (0..=self.tiles.next_power_of_two().ilog2()).map(|log| 1 << log);
        for tiles in classes {
            let split = Split::of(self.context.card(), shape.kv_heads, shape.head_dim, tiles);
            let places = tiles.min(self.tiles) * shape.kv_heads;
            let parts = places * split.most + PARTS_TOGETHER;
            let items = parts * QUERIES * shape.head_dim / ITEM;
            self.items = self.items.max(items);
        }
    }

    /// Takes the memory.
    pub(crate) fn take(&mut self) {
        let floats = |count| Buffer::new(&self.context, "parts of attention", count);
        (self.partial, self.weight) = (floats(ITEM * self.items), floats(2 * self.items));
        // No sum has these bits: nothing is left yet.
        self.partial.fill_bytes(0xff);
        self.weight.fill_bytes(0xff);
    }
}

/// The most shared memory of the kernels for a sequence alone: they fit beside a linear layer's.
const MOST_ALONE_BYTES: u32 = 102_656;

/// How the keys of sequences are split between blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Split {
    /// Parts of a sequence that fill the card.
    fair: usize,
    /// Parts of a long one, if that is more.
    most: usize,
    /// Whether the card runs as many parts as fill it at the same time.
    alone: bool,
    kernel: &'static str,
    /// Warps of a block, each of which takes a block of the cache in a turn.
    warps: usize,
    /// Bytes of shared memory.
    shared: u32,
}

impl Split {
    /// For a step with this many tiles of sequences.
    fn of(card: &Card, kv_heads: usize, head_dim: usize, tiles: usize) -> Self {
        let tiles = tiles.next_power_of_two();
        // A sequence alone leaves half of each multiprocessor to the layers before and after.
        let alone = tiles == 1;
        let halves = if alone || head_dim > 128 { 1 } else { 2 };
        let blocks = card.multiprocessors as usize * halves;
        let fair = (blocks / (kv_heads * tiles)).clamp(1, MOST_SPLITS);
        let ahead = alone && card.shared_bytes >= 2 * MOST_ALONE_BYTES;
        let (kernel, warps, shared) = match (head_dim, ahead) {
            (64, true) => ("attention_alone_64", 8, 50_688),
            (64, false) => ("attention_decode_64", 8, 34_304),
            (128, true) => ("attention_alone_128", 8, 100_864),
            (128, false) => ("attention_decode_128", 8, 68_096),
            (_, true) => ("attention_alone_256", 4, MOST_ALONE_BYTES),
            _ if card.shared_bytes >= 135_680 => ("attention_decode_256", 8, 135_680),
            _ => ("attention_decode_256_narrow", 4, 69_888),
        };
        Self { fair, most: fair.max(LONG_SPLITS), alone, kernel, warps, shared }
    }

    /// Blocks for `sequences` of at most `context` tokens.
    fn grid(&self, context: usize, kv_heads: usize, sequences: usize, tiles: usize) -> Grid {
        let turns = context.div_ceil(self.warps * BLOCK_TOKENS);
        let parts = self.fair.min(turns).max(turns.div_ceil(LONG_TURNS)).min(self.most);
        Grid {
            blocks: [parts as u32, kv_heads as u32, (sequences * tiles) as u32],
            threads: [32 * self.warps as u32, 1, 1],
            shared: self.shared,
        }
    }
}

/// What all attention kernels take: `struct Attention` of attention.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    qkv: Address,
    out: Address,
    keys: Address,
    values: Address,
    first_row: Address,
    rows: Address,
    start: Address,
    block_table: Address,
    max_blocks: i32,
    cols: i32,
    heads: i32,
    kv_heads: i32,
    query_stride: i32,
    gated: i32,
    min_rows: i32,
    max_rows: i32,
    scale: f32,
}

/// What the kernel for few rows takes besides: `struct Decode` of decode.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct FewRows {
    q_norm: Address,
    k_norm: Address,
    partial: Address,
    weight: Address,
    eps: f32,
    first_sequence: i32,
    tiles: i32,
    fair_parts: i32,
    most_parts: i32,
    long_turns: i32,
    together: i32,
}

impl Arguments {
    fn of(
        cuda: &Cuda,
        shape: &AttentionShape,
        qkv: &Tensor,
        cache: &KvCache,
        out: &Tensor,
    ) -> Self {
        let step = &cuda.step;
        Self {
            qkv: qkv.values.at(0),
            out: out.values.at(0),
            keys: cache.keys.at(0),
            values: cache.values.at(0),
            first_row: step.first_row(),
            rows: step.seq_rows(),
            start: step.start(),
            block_table: step.block_table(),
            max_blocks: step.blocks_stride() as i32,
            cols: qkv.cols as i32,
            heads: shape.heads as i32,
            kv_heads: shape.kv_heads as i32,
            query_stride: shape.query_stride() as i32,
            gated: i32::from(shape.gated),
            min_rows: 1,
            max_rows: FEW_ROWS as i32,
            scale: std::f32::consts::LOG2_E / (shape.head_dim as f32).sqrt(),
        }
    }
}

/// Norms and rotates the step's queries and keys, puts keys and values into their blocks, and
/// attends over all keys.
pub(crate) fn attention(
    cuda: &Cuda,
    layer: &AttentionLayer<Buffer<f32>>,
    qkv: &mut Tensor,
    cache: &mut KvCache,
    out: &mut Tensor,
) {
    let shape = &layer.shape;
    if !has_kernel(shape, cache.shape.block_size) {
        rope_kv_plain(cuda, layer, qkv, cache);
        attention_plain(cuda, shape, qkv, cache, out);
        return;
    }
    let arguments = Arguments::of(cuda, shape, qkv, cache, out);
    let StepSize { fewest_rows, most_rows, .. } = cuda.step.size;
    if fewest_rows <= FEW_ROWS {
        few_rows(cuda, layer, &arguments);
    }
    if most_rows > FEW_ROWS {
        rope_kv(cuda, layer, qkv, cache, FEW_ROWS + 1);
        many_rows(cuda, shape, &arguments);
    }
}

/// Whether the tensor cores' kernels are made for the shape.
fn has_kernel(shape: &AttentionShape, block_size: usize) -> bool {
    [64, 128, MOST_HEAD_DIM].contains(&shape.head_dim) && block_size == BLOCK_TOKENS
}

/// Sequences with few rows, as many at a time as there is room for their parts.
fn few_rows(cuda: &Cuda, layer: &AttentionLayer<Buffer<f32>>, arguments: &Arguments) {
    let AttentionLayer { shape, q_norm, k_norm } = layer;
    let (parts, size) = (&cuda.attention, &cuda.step.size);
    let tiles = tiles(shape, size.most_rows);
    let all = tiles * size.sequences;
    let split = Split::of(cuda.context.card(), shape.kv_heads, shape.head_dim, all);
    let room = parts.tiles / tiles;
    assert!(room > 0, "{} query heads share keys", shape.heads / shape.kv_heads);
    for first in (0..size.sequences).step_by(room) {
        let count = room.min(size.sequences - first);
        let grid = split.grid(size.most_context, shape.kv_heads, count, tiles);
        let few = FewRows {
            q_norm: q_norm.at(0),
            k_norm: k_norm.at(0),
            partial: parts.partial.at(0),
            weight: parts.weight.at(0),
            eps: shape.eps,
            first_sequence: first as i32,
            tiles: tiles as i32,
            fair_parts: split.fair as i32,
            most_parts: split.most as i32,
            long_turns: LONG_TURNS as i32,
            together: i32::from(split.alone && grid.blocks[0] as usize <= split.fair),
        };
        cuda.launch(split.kernel, grid)
            .arg_by_value(arguments)
            .arg_by_value(&few)
            .arg_by_value(&Rotation::of(shape))
            .overlapping()
            .run();
    }
}

/// Tiles of queries of the sequence that has most among those with few rows.
fn tiles(shape: &AttentionShape, most_rows: usize) -> usize {
    (most_rows.min(FEW_ROWS) * (shape.heads / shape.kv_heads)).div_ceil(QUERIES)
}

/// Sequences with many rows, whose queries and keys are rotated already.
fn many_rows(cuda: &Cuda, shape: &AttentionShape, arguments: &Arguments) {
    let size = &cuda.step.size;
    let tile = Tile::of(cuda.context.card(), shape.head_dim);
    let range = (FEW_ROWS as i32 + 1, i32::MAX);
    let arguments = Arguments { min_rows: range.0, max_rows: range.1, ..*arguments };
    cuda.launch(tile.kernel, tile.grid(shape, size.most_rows, size.sequences))
        .arg_by_value(&arguments)
        .overlapping()
        .run();
}

/// What a block of the kernels for many rows takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    kernel: &'static str,
    rows: usize,
    threads: u32,
    /// Keys and values that lie in shared memory beside the queries.
    beside: usize,
}

impl Tile {
    fn of(card: &Card, head_dim: usize) -> Self {
        let (kernel, rows, threads, beside) = match (card.generation, head_dim) {
            (90, 128) => ("attention_prefill_hopper_128", 128, 256, 4 * 128),
            (90, MOST_HEAD_DIM) => ("attention_prefill_hopper_256", 128, 256, 4 * 64),
            (_, 64) => ("attention_prefill_64", 128, 128, 2 * 64),
            (_, 128) => ("attention_prefill_128", 128, 128, 2 * 64),
            _ => ("attention_prefill_256", 64, 128, 2 * 64),
        };
        Self { kernel, rows, threads, beside }
    }

    /// A block for each query head and tile of rows.
    fn grid(&self, shape: &AttentionShape, most_rows: usize, sequences: usize) -> Grid {
        let tiles = most_rows.div_ceil(self.rows);
        let shared = (self.rows + self.beside) * shape.head_dim * size_of::<f16>();
        Grid {
            blocks: [shape.heads as u32, tiles as u32, sequences as u32],
            threads: [self.threads, 1, 1],
            shared: shared as u32,
        }
    }
}

/// Any shape, row by row.
fn attention_plain(
    cuda: &Cuda,
    shape: &AttentionShape,
    qkv: &Tensor,
    cache: &KvCache,
    out: &mut Tensor,
) {
    assert!(shape.head_dim <= MOST_PLAIN_HEAD_DIM, "a head of {} elements", shape.head_dim);
    let step = &cuda.step;
    cuda.launch("attention_plain", Grid::plane(shape.heads as u32, cuda.rows() as u32, 32))
        .arg(&qkv.values)
        .arg(shape.heads)
        .arg(shape.kv_heads)
        .arg(shape.head_dim)
        .arg(shape.query_stride())
        .arg(qkv.cols)
        .arg(shape.gated)
        .arg(step.positions())
        .arg(step.row_sequence())
        .arg(step.block_table())
        .arg(step.blocks_stride())
        .arg(cache.shape.block_size)
        .arg(&cache.keys)
        .arg(&cache.values)
        .arg(&out.values)
        .overlapping()
        .run();
}
