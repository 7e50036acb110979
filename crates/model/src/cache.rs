//! What a model remembers between steps: keys and values in blocks, recurrent state in slots.

use kernels::Backend;
use kernels::gated_delta_rule::DeltaState;

/// One layer's memory.
pub(crate) enum LayerCache<B: Backend> {
    Attention(B::KvCache),
    DeltaNet(DeltaState<B::State>),
}

/// All layers' memory, of one rank.
pub struct Cache<B: Backend> {
    pub(crate) layers: Vec<LayerCache<B>>,
}

impl<B: Backend> Cache<B> {
    /// Copies block `from` to block `to` in every attention layer.
    pub fn copy_block(&mut self, backend: &mut B, from: usize, to: usize) {
        for layer in &mut self.layers {
            if let LayerCache::Attention(cache) = layer {
                backend.copy_block(cache, from, to);
            }
        }
    }

    /// Copies slot `from` to slot `to` in every recurrent layer.
    pub fn copy_state(&mut self, backend: &mut B, from: usize, to: usize) {
        for layer in &mut self.layers {
            if let LayerCache::DeltaNet(state) = layer {
                backend.copy_state(&mut state.conv, from, to);
                backend.copy_state(&mut state.memory, from, to);
            }
        }
    }

    /// Bytes of one block's keys and values, of all attention layers.
    pub fn block_bytes(&self, backend: &B) -> usize {
        self.kv_caches().map(|cache| backend.block_bytes(cache)).sum()
    }

    /// Bytes of one slot's state, of all recurrent layers.
    pub fn state_bytes(&self, backend: &B) -> usize {
        self.states().map(|state| backend.state_bytes(state)).sum()
    }

    /// Copies a block to the host, layer after layer; `bytes` has [`Cache::block_bytes`] of room.
    pub fn save_block(&self, backend: &mut B, block: usize, mut bytes: &mut [u8]) {
        for cache in self.kv_caches() {
            let (own, rest) = bytes.split_at_mut(backend.block_bytes(cache));
            backend.save_block(cache, block, own);
            bytes = rest;
        }
    }

    /// Puts back what [`Cache::save_block`] wrote, in any block.
    pub fn load_block(&mut self, backend: &mut B, block: usize, mut bytes: &[u8]) {
        for layer in &mut self.layers {
            let LayerCache::Attention(cache) = layer else { continue };
            let (own, rest) = bytes.split_at(backend.block_bytes(cache));
            backend.load_block(cache, block, own);
            bytes = rest;
        }
    }

    /// Copies a slot's state to the host; `bytes` has [`Cache::state_bytes`] of room.
    pub fn save_state(&self, backend: &mut B, slot: usize, mut bytes: &mut [u8]) {
        for state in self.states() {
            let (own, rest) = bytes.split_at_mut(backend.state_bytes(state));
            backend.save_state(state, slot, own);
            bytes = rest;
        }
    }

    /// Puts back what [`Cache::save_state`] wrote, in any slot.
    pub fn load_state(&mut self, backend: &mut B, slot: usize, mut bytes: &[u8]) {
        for layer in &mut self.layers {
            let LayerCache::DeltaNet(layer) = layer else { continue };
            for state in [&mut layer.conv, &mut layer.memory] {
                let (own, rest) = bytes.split_at(backend.state_bytes(state));
                backend.load_state(state, slot, own);
                bytes = rest;
            }
        }
    }

    fn kv_caches(&self) -> impl Iterator<Item = &B::KvCache> {
        self.layers.iter().filter_map(|layer| match layer {
            LayerCache::Attention(cache) => Some(cache),
            LayerCache::DeltaNet(_) => None,
        })
    }

    fn states(&self) -> impl Iterator<Item = &B::State> {
        let layers = self.layers.iter().filter_map(|layer| match layer {
            LayerCache::Attention(_) => None,
            LayerCache::DeltaNet(state) => Some([&state.conv, &state.memory]),
        });
        layers.flatten()
    }
}
