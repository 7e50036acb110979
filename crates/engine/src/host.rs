//! A rank's part of the prefix cache's host tier: bytes under names that the scheduler gives.

use std::collections::HashMap;

use kernels::Backend;
use model::Cache;
use scheduler::{Copy, HostItem};

/// See the module.
#[derive(Default)]
pub(crate) struct HostStore {
    items: HashMap<HostItem, Box<[u8]>>,
}

impl HostStore {
    /// Makes one copy of a plan.
    pub(crate) fn carry_out<B: Backend>(
        &mut self,
        copy: &Copy,
        backend: &mut B,
        cache: &mut Cache<B>,
    ) {
        match *copy {
            Copy::State { from, to } => cache.copy_state(backend, from as usize, to as usize),
            Copy::Block { from, to } => cache.copy_block(backend, from as usize, to as usize),
            Copy::SaveBlock { block, item } => {
                let mut bytes = vec![0; cache.block_bytes(backend)];
                cache.save_block(backend, block as usize, &mut bytes);
                self.items.insert(item, bytes.into());
            }
            Copy::SaveState { slot, item } => {
                let mut bytes = vec![0; cache.state_bytes(backend)];
                cache.save_state(backend, slot as usize, &mut bytes);
                self.items.insert(item, bytes.into());
            }
            Copy::LoadBlock { item, block } => {
                cache.load_block(backend, block as usize, self.bytes(item));
            }
            Copy::LoadState { item, slot } => {
                cache.load_state(backend, slot as usize, self.bytes(item));
            }
            Copy::Forget { item } => {
                self.items.remove(&item);
            }
        }
    }

    fn bytes(&self, item: HostItem) -> &[u8] {
        self.items.get(&item).expect("the scheduler loads what it has saved and not forgotten")
    }
}
