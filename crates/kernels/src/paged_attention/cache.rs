//! Keys and values in blocks.

use crate::backend::KvShape;
use crate::cpu::memory;
use crate::cpu::parts::Parts;
use crate::paged_attention::AttentionShape;

/// One layer's keys and values, so that what one head needs of a block is contiguous.
pub struct KvCache {
    /// Its size.
    pub shape: KvShape,
    /// Rotated keys, `[blocks, kv_heads, head_dim, block_size]`: a register holds one element of
    /// many keys.
    pub keys: Vec<f32>,
    /// Values, `[blocks, kv_heads, block_size, head_dim]`: a register holds many elements of one.
    pub values: Vec<f32>,
}

/// One head's blocks of a sequence.
pub(crate) struct Head<'a> {
    cache: &'a KvCache,
    blocks: &'a [u32],
    head: usize,
    pub(crate) block_size: usize,
    pub(crate) dim: usize,
}

/// A cache whose heads several tasks write, each its own.
pub struct KvParts<'a> {
    shape: KvShape,
    keys: Parts<'a>,
    values: Parts<'a>,
}

impl KvCache {
    /// Room for `shape`, zeroed.
    pub fn new(shape: KvShape) -> Self {
        let elements = shape.blocks * shape.kv_heads * shape.block_size * shape.head_dim;
        Self { shape, keys: memory::zeros(elements), values: memory::zeros(elements) }
    }

    /// Elements of a block's keys, and as many of its values.
    pub(crate) fn block_elements(&self) -> usize {
        self.shape.kv_heads * self.shape.block_size * self.shape.head_dim
    }

    /// All heads' keys and values of a block.
    pub(crate) fn block(&self, block: usize) -> (&[f32], &[f32]) {
        let size = self.block_elements();
        let range = block * size..(block + 1) * size;
        (&self.keys[range.clone()], &self.values[range])
    }

    /// As [`KvCache::block`].
    pub(crate) fn block_mut(&mut self, block: usize) -> (&mut [f32], &mut [f32]) {
        let size = self.block_elements();
        let range = block * size..(block + 1) * size;
        (&mut self.keys[range.clone()], &mut self.values[range])
    }

    /// Copies all heads' keys and values of one block to another.
    pub fn copy_block(&mut self, from: usize, to: usize) {
        let size = self.block_elements();
        self.keys.copy_within(from * size..(from + 1) * size, to * size);
        self.values.copy_within(from * size..(from + 1) * size, to * size);
    }

    /// The cache for tasks that each write a head.
    pub fn parts(&mut self) -> KvParts<'_> {
        let tile = self.shape.block_size * self.shape.head_dim;
        let keys = Parts::new(&mut self.keys, tile);
        KvParts { shape: self.shape, keys, values: Parts::new(&mut self.values, tile) }
    }

    pub(crate) fn head<'a>(&'a self, blocks: &'a [u32], head: usize) -> Head<'a> {
        let KvShape { block_size, head_dim, .. } = self.shape;
        Head { cache: self, blocks, head, block_size, dim: head_dim }
    }
}

impl Head<'_> {
    fn tile<'a>(&self, elements: &'a [f32], block: usize) -> &'a [f32] {
        let tile = self.block_size * self.dim;
        let at = self.blocks[block] as usize * self.cache.shape.kv_heads + self.head;
        &elements[at * tile..(at + 1) * tile]
    }

    /// Block `block` of the sequence: `[head_dim, block_size]`.
    pub(crate) fn keys(&self, block: usize) -> &[f32] {
        self.tile(&self.cache.keys, block)
    }

    /// Block `block` of the sequence: `[block_size, head_dim]`.
    pub(crate) fn values(&self, block: usize) -> &[f32] {
        self.tile(&self.cache.values, block)
    }
}

impl KvParts<'_> {
    /// Puts head `head` of a projection's row at `token` of the sequence with these blocks.
    ///
    /// # Safety
    /// Nobody else touches the head in this block at the same time.
    pub unsafe fn put(
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
        for (out, key) in keys[within..].iter_mut().step_by(block_size).zip(&row[key..]) {
            *out = *key;
        }
        values[within * head_dim..(within + 1) * head_dim]
            .copy_from_slice(&row[value..value + head_dim]);
    }
}

#[cfg(test)]
impl KvCache {
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
        (keys.copied().collect(), self.values[value..value + head_dim].to_vec())
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
            self.keys[start + at * block_size + within] = *key;
        }
        self.values[start + within * head_dim..][..head_dim].copy_from_slice(value);
    }
}
