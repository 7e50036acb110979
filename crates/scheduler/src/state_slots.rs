//! Slots of the recurrent state pool: the first ones serve running requests, one each, the others
//! hold the prefix cache's checkpoints. Models without recurrent layers have none.

/// Hands out slot numbers, each to one holder.
pub(crate) struct StateSlots {
    /// `None`: the model has no recurrent state, and a request needs no slot.
    running: Option<Vec<u32>>,
    checkpoints: Vec<u32>,
    total: u32,
    checkpoints_total: u32,
}

impl StateSlots {
    /// `running` slots `0..running`, then `checkpoints` more.
    pub(crate) fn new(running: Option<u32>, checkpoints: u32) -> Self {
        let total = running.unwrap_or(0);
        let checkpoints = if running.is_some() { checkpoints } else { 0 };
        Self {
            running: running.map(|total| (0..total).rev().collect()),
            checkpoints: (total..total + checkpoints).rev().collect(),
            total,
            checkpoints_total: checkpoints,
        }
    }

    /// Slots for running requests that none of them holds.
    pub(crate) fn free(&self) -> u32 {
        self.running.as_ref().map_or(0, |free| free.len() as u32)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.running.as_ref().is_none_or(|free| !free.is_empty())
    }

    /// A slot, or `None` when the model needs none. Only called when there is room.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.running.as_mut().map(|free| free.pop().expect("checked by has_room"))
    }

    pub(crate) fn give_back(&mut self, slot: Option<u32>) {
        if let (Some(free), Some(slot)) = (&mut self.running, slot) {
            free.push(slot);
            assert!(free.len() <= self.total as usize, "a slot was given back twice");
        }
    }

    pub(crate) fn take_checkpoint(&mut self) -> Option<u32> {
        self.checkpoints.pop()
    }

    /// Slots that hold a checkpoint.
    pub(crate) fn checkpoints_taken(&self) -> u32 {
        self.checkpoints_total - self.checkpoints.len() as u32
    }

    pub(crate) fn give_back_checkpoint(&mut self, slot: u32) {
        self.checkpoints.push(slot);
    }
}
