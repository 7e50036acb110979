//! The launch on a card.

use std::f64::consts::TAU;

use super::cpu::frequencies;
use crate::cuda::{Address, Cuda, Grid, Tensor};
use crate::paged_attention::cuda::KvCache;
use crate::paged_attention::{AttentionLayer, AttentionShape};
use crate::rms_norm::cuda::threads;

/// The widest head that the fast kernels take.
pub(crate) const MOST_HEAD_DIM: usize = 256;

/// Tokens of a block, as the fast kernels have it.
pub(crate) const BLOCK_TOKENS: usize = 16;

/// Heads of a row that one block takes at a time, a warp each.
const WARPS: usize = 8;

/// Rows from which on a block takes a whole row, so that the row's angles are computed once.
const MANY_ROWS: usize = 512;

/// Each pair's frequency in units of 2^-64 turns a token: `struct Rotation` of head.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Rotation {
    turns: [u64; MOST_HEAD_DIM / 2],
    pairs: i32,
}

impl Rotation {
    /// The frequencies of a shape.
    pub(crate) fn of(shape: &AttentionShape) -> Self {
        let mut turns = [0; MOST_HEAD_DIM / 2];
        for (turns, frequency) in turns.iter_mut().zip(frequencies(shape)) {
            *turns = (frequency / TAU * 2.0_f64.powi(64)) as u64;
        }
        Self { turns, pairs: (shape.rotary_dim / 2) as i32 }
    }
}

/// What the kernel takes: `struct RopeKv` of rope_kv.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct RopeKv {
    qkv: Address,
    q_norm: Address,
    k_norm: Address,
    keys: Address,
    values: Address,
    positions: Address,
    row_sequence: Address,
    seq_rows: Address,
    block_table: Address,
    max_blocks: i32,
    cols: i32,
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
    query_stride: i32,
    min_rows: i32,
    eps: f32,
}

fn grid(shape: &AttentionShape, rows: usize) -> Grid {
    let heads = shape.heads + 2 * shape.kv_heads;
    let parts = if rows < MANY_ROWS { heads.div_ceil(WARPS) } else { 1 };
    Grid::plane(rows as u32, parts as u32, 32 * WARPS as u32)
}

/// Norms and rotates queries in place, and puts keys and values into their blocks, for sequences
/// with at least `min_rows` rows in the step.
pub(crate) fn rope_kv(
    cuda: &Cuda,
    layer: &AttentionLayer<crate::cuda::Buffer<f32>>,
    qkv: &mut Tensor,
    cache: &mut KvCache,
    min_rows: usize,
) {
    let (shape, step) = (&layer.shape, &cuda.step);
    let arguments = RopeKv {
        qkv: qkv.values.at(0),
        q_norm: layer.q_norm.at(0),
        k_norm: layer.k_norm.at(0),
        keys: cache.keys.at(0),
        values: cache.values.at(0),
        positions: step.positions(),
        row_sequence: step.row_sequence(),
        seq_rows: step.seq_rows(),
        block_table: step.block_table(),
        max_blocks: step.blocks_stride() as i32,
        cols: qkv.cols as i32,
        heads: shape.heads as i32,
        kv_heads: shape.kv_heads as i32,
        head_dim: shape.head_dim as i32,
        query_stride: shape.query_stride() as i32,
        min_rows: min_rows as i32,
        eps: shape.eps,
    };
    cuda.launch("rope_kv", grid(shape, cuda.rows()))
        .arg_by_value(&arguments)
        .arg_by_value(&Rotation::of(shape))
        .overlapping()
        .run();
}

/// The same for all sequences and any shape.
pub(crate) fn rope_kv_plain(
    cuda: &Cuda,
    layer: &AttentionLayer<crate::cuda::Buffer<f32>>,
    qkv: &mut Tensor,
    cache: &mut KvCache,
) {
    let (shape, step) = (&layer.shape, &cuda.step);
    let heads = shape.heads + 2 * shape.kv_heads;
    let grid = Grid::plane(heads as u32, cuda.rows() as u32, threads(shape.head_dim));
    cuda.launch("rope_kv_plain", grid.with_shared(4 * shape.head_dim as u32))
        .arg(&qkv.values)
        .arg(&layer.q_norm)
        .arg(&layer.k_norm)
        .arg(shape.eps)
        .arg(shape.heads)
        .arg(shape.kv_heads)
        .arg(shape.head_dim)
        .arg(shape.rotary_dim)
        .arg(shape.rope_theta)
        .arg(shape.query_stride())
        .arg(qkv.cols)
        .arg(step.positions())
        .arg(step.row_sequence())
        .arg(step.block_table())
        .arg(step.blocks_stride())
        .arg(cache.shape.block_size)
        .arg(&cache.keys)
        .arg(&cache.values)
        .overlapping()
        .run();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rope_kv::cpu::rotation;

    fn shape() -> AttentionShape {
        AttentionShape {
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            rotary_dim: 128,
            rope_theta: 1e6,
            gated: false,
            eps: 1e-6,
        }
    }

    /// The kernel's integer arithmetic, here in the same steps.
    #[test]
    fn angles_are_exact_at_any_position() {
        let shape = shape();
        let turns = Rotation::of(&shape).turns;
        for position in [0, 1, 4095, 262_143, 10_000_000] {
            let frequencies: Vec<f64> = frequencies(&shape).collect();
            let want = rotation(&frequencies, position);
            for (turns, (cosine, sine)) in turns.iter().zip(want) {
                let phase = (position as u64).wrapping_mul(*turns);
                let angle = f64::from((phase >> 32) as i32) / 2.0_f64.powi(31) * TAU / 2.0;
                assert!((angle.cos() - f64::from(cosine)).abs() < 1e-7, "{position}");
                assert!((angle.sin() - f64::from(sine)).abs() < 1e-7, "{position}");
            }
        }
    }

    #[test]
    fn every_head_has_a_warp() {
        assert_eq!(grid(&shape(), 3).blocks, [3, 6, 1]);
        assert_eq!(grid(&shape(), 4096).blocks, [4096, 1, 1]);
    }

    /// As many bytes as the kernels declare.
    #[test]
    fn arguments_lie_as_in_the_kernel() {
        assert_eq!((size_of::<Rotation>(), size_of::<RopeKv>()), (1032, 104));
    }
}
