//! Keys and values in blocks. In half precision by default: what attention reads at depth is all of
//! them. In single precision where a model is held against another implementation.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::backend::KvShape;
use crate::cpu::lanes::Lanes;
use crate::cpu::memory;
use crate::cpu::parts::Parts;
use crate::paged_attention::AttentionShape;

/// One layer's keys and values.
pub struct KvCache(pub(crate) Kept);

/// See [`KvCache`].
pub(crate) enum Kept {
    /// The bits of numbers in half precision.
    Half(Blocks<u16>),
    Single(Blocks<f32>),
}

/// How precisely keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvPrecision {
    /// In two bytes.
    #[default]
    Half,
    /// In four.
    Single,
}

impl KvCache {
    /// Room for `shape`, zeroed.
    pub fn new(shape: KvShape, precision: KvPrecision) -> Self {
        Self(match precision {
            KvPrecision::Half => Kept::Half(Blocks::new(shape)),
            KvPrecision::Single => Kept::Single(Blocks::new(shape)),
        })
    }
}

/// A number as it is kept.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    fn lanes<L: Lanes>(from: &[Self; 16]) -> L;
    fn to_f32(self) -> f32;
    /// The nearest of each of `from`, which is as long as `to`.
    fn round(from: &[f32], to: &mut [Self]);
}

impl Element for u16 {
    #[inline(always)]
    fn lanes<L: Lanes>(from: &[Self; 16]) -> L {
        L::widen(from)
    }

    fn to_f32(self) -> f32 {
        f16::from_bits(self).to_f32()
    }

    fn round(from: &[f32], to: &mut [Self]) {
        to.reinterpret_cast_mut::<f16>().convert_from_f32_slice(from);
    }
}

impl Element for f32 {
    #[inline(always)]
    fn lanes<L: Lanes>(from: &[Self; 16]) -> L {
        L::load(from)
    }

    fn to_f32(self) -> f32 {
        self
    }

    fn round(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

/// Keys and values, so that what one head needs of a block is contiguous.
pub(crate) struct Blocks<T> {
    pub(crate) shape: KvShape,
    /// Rotated keys, `[blocks, kv_heads, head_dim, block_size]`: a register holds one element of
    /// many keys.
    pub(crate) keys: Vec<T>,
    /// Values, `[blocks, kv_heads, block_size, head_dim]`: a register holds many elements of one.
    pub(crate) values: Vec<T>,
}

/// One head's blocks of a sequence.
pub(crate) struct Head<'a, T> {
    cache: &'a Blocks<T>,
    blocks: &'a [u32],
    head: usize,
    pub(crate) block_size: usize,
    pub(crate) dim: usize,
}

/// Blocks whose heads several tasks write, each its own.
pub(crate) struct KvParts<'a, T> {
    shape: KvShape,
    keys: Parts<'a, T>,
    values: Parts<'a, T>,
}

impl<T: Element> Blocks<T> {
    /// Room for `shape`, zeroed.
    pub(crate) fn new(shape: KvShape) -> Self {
        let elements = shape.blocks * shape.kv_heads * shape.block_size * shape.head_dim;
        let room = || memory::zeros(elements);
        Self { shape, keys: room(), values: room() }
    }

    /// Elements of a block's keys, and as many of its values.
    pub(crate) fn block_elements(&self) -> usize {
        self.shape.kv_heads * self.shape.block_size * self.shape.head_dim
    }

    /// All heads' keys and values of a block.
    pub(crate) fn block(&self, block: usize) -> [&[T]; 2] {
        let size = self.block_elements();
        [&self.keys, &self.values].map(|all| &all[block * size..(block + 1) * size])
    }

    /// As [`Blocks::block`].
    pub(crate) fn block_mut(&mut self, block: usize) -> [&mut [T]; 2] {
        let size = self.block_elements();
        [&mut self.keys, &mut self.values].map(|all| &mut all[block * size..(block + 1) * size])
    }

    /// Copies all heads' keys and values of one block to another.
    pub(crate) fn copy_block(&mut self, from: usize, to: usize) {
        let size = self.block_elements();
        self.keys.copy_within(from * size..(from + 1) * size, to * size);
        self.values.copy_within(from * size..(from + 1) * size, to * size);
    }

    /// The blocks for tasks that each write a head.
    pub(crate) fn parts(&mut self) -> KvParts<'_, T> {
        let tile = self.shape.block_size * self.shape.head_dim;
        let keys = Parts::new(&mut self.keys, tile);
        KvParts { shape: self.shape, keys, values: Parts::new(&mut self.values, tile) }
    }

    pub(crate) fn head<'a>(&'a self, blocks: &'a [u32], head: usize) -> Head<'a, T> {
        let KvShape { block_size, head_dim, .. } = self.shape;
        Head { cache: self, blocks, head, block_size, dim: head_dim }
    }
}

impl<T> Head<'_, T> {
    fn tile<'a>(&self, elements: &'a [T], block: usize) -> &'a [T] {
        let tile = self.block_size * self.dim;
        let at = self.blocks[block] as usize * self.cache.shape.kv_heads + self.head;
        &elements[at * tile..(at + 1) * tile]
    }

    /// Block `block` of the sequence: `[head_dim, block_size]`.
    pub(crate) fn keys(&self, block: usize) -> &[T] {
        self.tile(&self.cache.keys, block)
    }

    /// Block `block` of the sequence: `[block_size, head_dim]`.
    pub(crate) fn values(&self, block: usize) -> &[T] {
        self.tile(&self.cache.values, block)
    }
}

impl<T: Element> KvParts<'_, T> {
    /// Puts head `head` of a projection's row at `token` of the sequence with these blocks.
    ///
    /// # Safety
    /// Nobody else touches the head in this block at the same time.
    pub(crate) unsafe fn put(
        &self,
        shape: &AttentionShape,
        head: usize,
        row: &[f32],
        blocks: &[u32],
        token: usize,
    ) {
        let KvShape { block_size, head_dim, kv_heads, .. } = self.shape;
        let part = blocks[token / block_size] as usize * kv_heads + head;
        let key = shape.query_cols() + head * head_dim;
        let value = key + shape.kv_cols();
        // SAFETY: the caller is alone with the part.
        let (keys, values) = unsafe { (self.keys.part(part), self.values.part(part)) };
        let within = token % block_size;
        scatter(&row[key..key + head_dim], &mut keys[within..], block_size);
        let values = &mut values[within * head_dim..(within + 1) * head_dim];
        T::round(&row[value..value + head_dim], values);
    }
}

/// Rounds `from` to every `step`th place of `to`.
fn scatter<T: Element>(from: &[f32], to: &mut [T], step: usize) {
    let mut rounded = [T::default(); 16];
    for (from, to) in from.chunks(16).zip(to.chunks_mut(16 * step)) {
        let rounded = &mut rounded[..from.len()];
        T::round(from, rounded);
        for (to, from) in to.iter_mut().step_by(step).zip(rounded) {
            *to = *from;
        }
    }
}

#[cfg(test)]
impl<T: Element> Blocks<T> {
    fn at(&self, blocks: &[u32], head: usize, token: usize) -> (usize, usize) {
        let tile = self.shape.block_size * self.shape.head_dim;
        let block = blocks[token / self.shape.block_size] as usize;
        ((block * self.shape.kv_heads + head) * tile, token % self.shape.block_size)
    }

    /// The key and value of a token.
    pub(crate) fn token(&self, blocks: &[u32], head: usize, token: usize) -> (Vec<f32>, Vec<f32>) {
        let (start, within) = self.at(blocks, head, token);
        let KvShape { block_size, head_dim, .. } = self.shape;
        let keys = self.keys[start + within..].iter().step_by(block_size).take(head_dim);
        let value = start + within * head_dim;
        let wide = |kept: &T| kept.to_f32();
        let values = &self.values[value..value + head_dim];
        (keys.map(wide).collect(), values.iter().map(wide).collect())
    }

    /// Writes a token's key and value.
    pub(crate) fn put(
        &mut self,
        blocks: &[u32],
        head: usize,
        token: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let (start, within) = self.at(blocks, head, token);
        let KvShape { block_size, head_dim, .. } = self.shape;
        for (at, key) in key.iter().enumerate() {
            T::round(&[*key], &mut self.keys[start + at * block_size + within..][..1]);
        }
        T::round(value, &mut self.values[start + within * head_dim..][..head_dim]);
    }
}
