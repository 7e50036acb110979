//! What a model remembers between steps: keys and values in blocks, recurrent state in slots.

use kernels::Backend;

use crate::delta_net::DeltaState;

/// One layer's memory.
pub(crate) enum LayerCache<B: Backend> {
    Attention(B::KvCache),
    DeltaNet(DeltaState<B>),
}

/// All layers' memory, of one rank.
pub struct Cache<B: Backend> {
    pub(crate) layers: Vec<LayerCache<B>>,
}
