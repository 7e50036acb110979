//! Making room: from the device to the host, and from the host to nowhere.

use super::checkpoint::Kept;
use super::host::Droppable;
use super::{Device, Home, Place, PrefixCache};

impl PrefixCache {
    /// A free block, held by the caller; what only the cache keeps makes room. Only called when
    /// there is a block that no request holds.
    pub(crate) fn take_block(&mut self, device: &mut Device<'_>) -> u32 {
        while device.blocks.free() == 0 {
            let evicted = self.evict_block(device);
            assert!(evicted, "available blocks are free or kept by the cache");
        }
        device.blocks.take()
    }

    /// Lets go of a block that only the cache keeps. False when there is none.
    fn evict_block(&mut self, device: &mut Device<'_>) -> bool {
        if let Some(&(_, node)) = self.device_leaves.first() {
            self.move_node_down(node, device);
            return true;
        }
        let with_own_block = |id: &u64| match self.checkpoints[id].kept {
            Kept::Device { tail_block, .. } => {
                tail_block.is_some_and(|block| !device.blocks.is_held(block))
            }
            Kept::Host { .. } => false,
        };
        let mut by_use = self.device_checkpoints.iter().map(|(_, id)| *id);
        let Some(oldest) = by_use.find(with_own_block) else { return false };
        self.move_checkpoint_down(oldest, device);
        true
    }

    /// From the device to the host; to nowhere when that has no room for a block at all.
    fn move_node_down(&mut self, id: u64, device: &mut Device<'_>) {
        self.counts.evictions.device += 1;
        if !self.make_room(0, 1, device) {
            self.drop_node(id, device);
            return;
        }
        self.delist(id);
        let Home::Device(block) = self.nodes[&id].home else {
            unreachable!("device leaves are on the device");
        };
        let item = self.host.save_block(block, device.copies);
        device.blocks.drop_kept(block);
        let node = self.node_mut(id);
        node.home = Home::Host(item);
        let parent = node.parent;
        self.list(id);
        if let Place::Node(parent) = parent {
            self.node_mut(parent).device_children -= 1;
            self.list(parent);
        }
    }

    /// From the device to the host; to nowhere when that has no room for it.
    pub(super) fn move_checkpoint_down(&mut self, id: u64, device: &mut Device<'_>) {
        self.counts.evictions.device += 1;
        let Kept::Device { slot, tail_block } = self.checkpoints[&id].kept else {
            unreachable!("only states on the device move down");
        };
        let fits = self.make_room(1, u64::from(tail_block.is_some()), device);
        if !self.checkpoints.contains_key(&id) {
            // Its place was what had to go.
            return;
        }
        if !fits {
            self.drop_checkpoint(id, device);
            return;
        }
        self.delist_checkpoint(id);
        let state = self.host.save_state(slot, device.copies);
        let saved = tail_block.map(|block| self.host.save_block(block, device.copies));
        let checkpoint = self.checkpoints.get_mut(&id).expect("looked up above");
        checkpoint.kept = Kept::Host { state, tail_block: saved };
        self.give_back(slot, tail_block, device);
        self.list_checkpoint(id);
    }

    /// Drops what was used least recently until so much more fits on the host.
    fn make_room(&mut self, states: u64, blocks: u64, device: &mut Device<'_>) -> bool {
        if !self.host.could_hold(states, blocks) {
            return false;
        }
        self.host.forget_outdated(device.copies);
        while !self.host.has_room(states, blocks) {
            let Some(&(_, oldest)) = self.host.droppable.first() else { return false };
            self.counts.evictions.host += 1;
            match oldest {
                Droppable::Node(id) => self.drop_node(id, device),
                Droppable::Checkpoint(id) => self.drop_checkpoint(id, device),
            }
        }
        true
    }

    fn drop_node(&mut self, id: u64, device: &mut Device<'_>) {
        let at_its_end: Vec<u64> = self.checkpoints_of(Place::Node(id)).collect();
        for checkpoint in at_its_end {
            self.drop_checkpoint(checkpoint, device);
        }
        self.delist(id);
        self.unlist_place(id);
        let node = self.nodes.remove(&id).expect("a listed node");
        assert_eq!((node.children, node.holders), (0, 0), "only leaves are dropped");
        let on_device = match node.home {
            Home::Device(block) => {
                device.blocks.drop_kept(block);
                1
            }
            Home::Host(item) => {
                self.host.forget_block(item, device.copies);
                0
            }
        };
        if let Place::Node(parent) = node.parent {
            let entry = self.node_mut(parent);
            entry.children -= 1;
            entry.device_children -= on_device;
            self.list(parent);
        }
    }

    fn drop_checkpoint(&mut self, id: u64, device: &mut Device<'_>) {
        self.delist_checkpoint(id);
        let checkpoint = self.checkpoints.remove(&id).expect("a listed checkpoint");
        assert!(!checkpoint.pinned, "a request is being given this state");
        self.checkpoints_at.remove(&(checkpoint.place, id));
        match checkpoint.kept {
            Kept::Device { slot, tail_block } => self.give_back(slot, tail_block, device),
            Kept::Host { state, tail_block } => {
                self.host.forget_state(state, device.copies);
                if let Some(item) = tail_block {
                    self.host.forget_block(item, device.copies);
                }
            }
        }
    }

    fn give_back(&self, slot: u32, tail_block: Option<u32>, device: &mut Device<'_>) {
        device.slots.give_back_checkpoint(slot);
        if let Some(block) = tail_block {
            device.blocks.drop_kept(block);
        }
    }

    /// Puts a node where eviction finds it, if it may be evicted.
    pub(super) fn list(&mut self, id: u64) {
        let node = &self.nodes[&id];
        match node.home {
            _ if node.holders > 0 => {}
            Home::Device(_) if node.device_children == 0 => {
                self.device_leaves.insert((node.used, id));
            }
            Home::Host(_) if node.children == 0 => {
                self.host.droppable.insert((node.used, Droppable::Node(id)));
            }
            Home::Device(_) | Home::Host(_) => {}
        }
    }

    /// Takes a node out of reach of eviction.
    pub(super) fn delist(&mut self, id: u64) {
        let used = self.nodes[&id].used;
        self.device_leaves.remove(&(used, id));
        self.host.droppable.remove(&(used, Droppable::Node(id)));
    }

    pub(super) fn list_checkpoint(&mut self, id: u64) {
        let checkpoint = &self.checkpoints[&id];
        match checkpoint.kept {
            Kept::Device { .. } => {
                self.device_checkpoints.insert((checkpoint.used, id));
            }
            Kept::Host { .. } if !checkpoint.pinned => {
                self.host.droppable.insert((checkpoint.used, Droppable::Checkpoint(id)));
            }
            Kept::Host { .. } => {}
        }
    }

    pub(super) fn delist_checkpoint(&mut self, id: u64) {
        let used = self.checkpoints[&id].used;
        self.device_checkpoints.remove(&(used, id));
        self.host.droppable.remove(&(used, Droppable::Checkpoint(id)));
    }
}
