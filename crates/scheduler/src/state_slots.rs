//! Slots of the recurrent state pool: one a running request, none for models without such layers.

/// Hands out slot numbers, each to one holder.
pub(crate) struct StateSlots {
    /// `None`: the model has no recurrent state, and a request needs no slot.
    free: Option<Vec<u32>>,
    total: u32,
}

impl StateSlots {
    pub(crate) fn new(total: Option<u32>) -> Self {
        Self { free: total.map(|total| (0..total).rev().collect()), total: total.unwrap_or(0) }
    }

    pub(crate) fn free(&self) -> u32 {
        self.free.as_ref().map_or(0, |free| free.len() as u32)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.free.as_ref().is_none_or(|free| !free.is_empty())
    }

    /// A slot, or `None` when the model needs none. Only called when there is room.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.as_mut().map(|free| free.pop().expect("checked by has_room"))
    }

    pub(crate) fn give_back(&mut self, slot: Option<u32>) {
        if let (Some(free), Some(slot)) = (&mut self.free, slot) {
            free.push(slot);
            assert!(free.len() <= self.total as usize, "a slot was given back twice");
        }
    }
}
