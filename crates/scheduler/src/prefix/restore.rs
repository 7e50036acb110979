//! Giving a request what it found.

use super::checkpoint::Kept;
use super::{Device, Hit, Home, Place, PrefixCache};
use crate::plan::Copy;

impl PrefixCache {
    /// Lets a request hold what it found, and copies what it cannot share: its state in `slot` and
    /// the block in whose middle it goes on. The answer is its blocks in order.
    pub(crate) fn restore(
        &mut self,
        hit: &Hit,
        slot: Option<u32>,
        device: &mut Device<'_>,
    ) -> Vec<u32> {
        // Before any room is made, so that it is made from something else.
        for node in &hit.nodes {
            self.hold(*node, device.blocks);
        }
        // The state and its block first: they may lie in what a later copy overwrites.
        let tail = hit.checkpoint.zip(slot).and_then(|(id, slot)| {
            self.pin(id);
            let tail = self.restore_state(id, slot, device);
            self.unpin(id);
            tail
        });
        let nodes = hit.nodes.iter().map(|node| self.bring_up(*node, device));
        let mut blocks: Vec<u32> = nodes.collect();
        blocks.extend(tail);
        blocks
    }

    /// Copies a state to `slot`; the answer is a block that begins with its tail.
    fn restore_state(&mut self, id: u64, slot: u32, device: &mut Device<'_>) -> Option<u32> {
        match self.checkpoints[&id].kept {
            Kept::Device { slot: from, tail_block } => {
                device.copies.push(Copy::State { from, to: slot });
                let from = tail_block?;
                let to = self.take_block(device);
                if from != to {
                    device.copies.push(Copy::Block { from, to });
                }
                Some(to)
            }
            Kept::Host { state, tail_block } => {
                device.copies.push(Copy::LoadState { item: state, slot });
                let item = tail_block?;
                let block = self.take_block(device);
                device.copies.push(Copy::LoadBlock { item, block });
                Some(block)
            }
        }
    }

    /// The block of a node that the request holds already; on the device from now on.
    fn bring_up(&mut self, id: u64, device: &mut Device<'_>) -> u32 {
        let node = &self.nodes[&id];
        let parent = node.parent;
        let item = match node.home {
            Home::Device(block) => return block,
            Home::Host(item) => item,
        };
        let block = self.take_block(device);
        device.blocks.keep(block);
        device.copies.push(Copy::LoadBlock { item, block });
        self.host.forget_block(item, device.copies);
        self.node_mut(id).home = Home::Device(block);
        if let Place::Node(parent) = parent {
            // The parent is held as well, and so in no list.
            self.node_mut(parent).device_children += 1;
        }
        block
    }

    /// Counts a look-up before it is acted on.
    pub(crate) fn count(&mut self, prompt_tokens: usize, hit: &Hit) {
        self.counts.looked_up_tokens += prompt_tokens as u64;
        let block_size = self.block_size as u64;
        for id in &hit.nodes {
            match self.nodes[id].home {
                Home::Device(_) => self.counts.hit_tokens.device += block_size,
                Home::Host(_) => self.counts.hit_tokens.host += block_size,
            }
        }
        let Some(checkpoint) = hit.checkpoint.map(|id| &self.checkpoints[&id]) else { return };
        let tail = checkpoint.tail.len() as u64;
        match checkpoint.kept {
            Kept::Device { .. } => self.counts.hit_tokens.device += tail,
            Kept::Host { .. } => self.counts.hit_tokens.host += tail,
        }
    }
}
