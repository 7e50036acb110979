//! The host tier's accounts: which items lie there, within a budget of bytes.

use std::collections::BTreeSet;

use crate::HostLimits;
use crate::plan::{Copy, HostItem};

/// What can be dropped from the host, and with it from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Droppable {
    /// A node on the host without children that nobody holds.
    Node(u64),
    /// A checkpoint on the host.
    Checkpoint(u64),
}

/// See the module.
pub(super) struct Host {
    limits: HostLimits,
    bytes: u64,
    next_item: HostItem,
    /// By last use.
    pub(super) droppable: BTreeSet<(u64, Droppable)>,
    /// Items that nothing refers to, which are forgotten when room is needed.
    outdated: Vec<HostItem>,
}

impl Host {
    pub(super) fn new(limits: HostLimits) -> Self {
        Self { limits, bytes: 0, next_item: 0, droppable: BTreeSet::new(), outdated: Vec::new() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether so much can ever lie here.
    pub(super) fn could_hold(&self, states: u64, blocks: u64) -> bool {
        let bytes = self.size(states, blocks);
        bytes > 0 && bytes <= self.limits.budget_bytes
    }

    /// Whether so much more can lie here now.
    pub(super) fn has_room(&self, states: u64, blocks: u64) -> bool {
        self.bytes + self.size(states, blocks) <= self.limits.budget_bytes
    }

    fn size(&self, states: u64, blocks: u64) -> u64 {
        states * self.limits.state_bytes + blocks * self.limits.block_bytes
    }

    /// A block moves here; there is room.
    pub(super) fn save_block(&mut self, block: u32, copies: &mut Vec<Copy>) -> HostItem {
        let item = self.take(self.limits.block_bytes);
        copies.push(Copy::SaveBlock { block, item });
        item
    }

    /// A state moves here; there is room.
    pub(super) fn save_state(&mut self, slot: u32, copies: &mut Vec<Copy>) -> HostItem {
        let item = self.take(self.limits.state_bytes);
        copies.push(Copy::SaveState { slot, item });
        item
    }

    fn take(&mut self, bytes: u64) -> HostItem {
        self.bytes += bytes;
        assert!(self.bytes <= self.limits.budget_bytes, "the host tier exceeds its budget");
        self.next_item += 1;
        self.next_item
    }

    pub(super) fn forget_block(&mut self, item: HostItem, copies: &mut Vec<Copy>) {
        self.bytes -= self.limits.block_bytes;
        copies.push(Copy::Forget { item });
    }

    pub(super) fn forget_state(&mut self, item: HostItem, copies: &mut Vec<Copy>) {
        self.bytes -= self.limits.state_bytes;
        copies.push(Copy::Forget { item });
    }

    /// A block's item is of no use any more, and no plan is being made that could say so.
    pub(super) fn outdated(&mut self, item: HostItem) {
        self.outdated.push(item);
    }

    /// Forgets what is outdated.
    pub(super) fn forget_outdated(&mut self, copies: &mut Vec<Copy>) {
        for item in std::mem::take(&mut self.outdated) {
            self.forget_block(item, copies);
        }
    }
}
