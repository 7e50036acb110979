//! Recurrent states that the cache keeps, each after exactly so many tokens.

use super::{Device, Place, PrefixCache};
use crate::blocks::BlockPool;
use crate::plan::HostItem;

/// A recurrent state after the blocks up to `place` and the tokens of `tail`.
pub(super) struct Checkpoint {
    pub(super) place: Place,
    pub(super) tail: Box<[u32]>,
    pub(super) kept: Kept,
    /// A request is being given this state: it stays where it is.
    pub(super) pinned: bool,
    pub(super) used: u64,
}

/// Where a state lies. Its tail block holds the keys and values of `tail`; later tokens of whoever
/// wrote it may follow there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    Device { slot: u32, tail_block: Option<u32> },
    Host { state: HostItem, tail_block: Option<HostItem> },
}

impl PrefixCache {
    /// Whether the state after exactly these tokens is kept.
    pub(crate) fn has_checkpoint(&self, place: Place, tail: &[u32]) -> bool {
        self.checkpoints_of(place).any(|id| *self.checkpoints[&id].tail == *tail)
    }

    pub(super) fn checkpoints_of(&self, place: Place) -> impl Iterator<Item = u64> {
        self.checkpoints_at.range((place, 0)..=(place, u64::MAX)).map(|(_, id)| *id)
    }

    /// A slot for one more state, the least recently used one's if all are taken. `None` when there
    /// are no such slots.
    pub(crate) fn take_checkpoint_slot(&mut self, device: &mut Device<'_>) -> Option<u32> {
        if let Some(slot) = device.slots.take_checkpoint() {
            return Some(slot);
        }
        let (_, oldest) = *self.device_checkpoints.first()?;
        self.move_checkpoint_down(oldest, device);
        device.slots.take_checkpoint()
    }

    /// Keeps a state in `slot`, into which the next step copies it.
    pub(crate) fn add_checkpoint(
        &mut self,
        place: Place,
        tail: &[u32],
        tail_block: Option<u32>,
        slot: u32,
        blocks: &mut BlockPool,
    ) {
        if let Some(block) = tail_block {
            blocks.keep(block);
        }
        self.clock += 1;
        let (id, used) = (self.new_id(), self.clock);
        let kept = Kept::Device { slot, tail_block };
        let checkpoint = Checkpoint { place, tail: tail.into(), kept, pinned: false, used };
        self.checkpoints.insert(id, checkpoint);
        self.checkpoints_at.insert((place, id));
        self.list_checkpoint(id);
    }

    /// A request is given this state, which stays where it is until then.
    pub(super) fn pin(&mut self, id: u64) {
        self.delist_checkpoint(id);
        self.clock += 1;
        let checkpoint = self.checkpoints.get_mut(&id).expect("a state that was found");
        checkpoint.used = self.clock;
        // A device's slot and block keep what they hold until a later copy overwrites them, so
        // they may be given away meanwhile; a host's item does not outlive its being forgotten.
        checkpoint.pinned = matches!(checkpoint.kept, Kept::Host { .. });
        self.list_checkpoint(id);
    }

    pub(super) fn unpin(&mut self, id: u64) {
        if let Some(checkpoint) = self.checkpoints.get_mut(&id) {
            checkpoint.pinned = false;
            self.list_checkpoint(id);
        }
    }
}
