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
}
