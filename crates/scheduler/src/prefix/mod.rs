//! The prefix cache: what earlier requests computed, by the tokens that it was computed from.
//!
//! Full KV blocks form a tree: a block's place is its parent and its own tokens, so a path from a
//! root spells a prefix, and two requests share exactly what they have in common. Tokens are
//! compared, not hashes of them. A model with recurrent layers cannot start from blocks alone: it
//! needs its state after exactly that many tokens. Such states are checkpoints: copies in slots of
//! their own, each at a position, together with the block that position falls into.
//!
//! What the device has no more room for moves to the host, the least recently used first, and is
//! dropped from there in the same order. The part of a tree that is on the device is whole towards
//! its root, so leaves move down first, and a hit brings back what it needs from the root on.
//!
//! Callers with different isolation keys have different roots and share nothing.

mod checkpoint;
mod evict;
mod host;
mod lookup;
mod restore;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::blocks::BlockPool;
use crate::plan::{Copy, HostItem};
use crate::state_slots::StateSlots;
use crate::{CacheCounts, HostLimits};

use checkpoint::Checkpoint;
use host::Host;
pub(crate) use lookup::Hit;

/// A place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Before the first block, for callers with this isolation key.
    Root(u64),
    /// Behind the block of this node.
    Node(u64),
}

/// A full block.
struct Node {
    parent: Place,
    tokens: Box<[u32]>,
    home: Home,
    /// Requests that hold it, and with it all nodes towards the root.
    holders: u32,
    children: u32,
    /// Children on the device.
    device_children: u32,
    used: u64,
    /// What followed in the request that ended behind this block last: less than a block, which
    /// nobody can reuse. It tells where a later prompt goes another way.
    then: Box<[u32]>,
}

/// Where a block's keys and values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Device(u32),
    Host(HostItem),
}

/// The device's memory, and the copies of the plan that is being made.
pub(crate) struct Device<'a> {
    pub(crate) blocks: &'a mut BlockPool,
    pub(crate) slots: &'a mut StateSlots,
    pub(crate) copies: &'a mut Vec<Copy>,
}

/// See the module.
pub(crate) struct PrefixCache {
    block_size: usize,
    nodes: HashMap<u64, Node>,
    index: BTreeMap<(Place, Box<[u32]>), u64>,
    checkpoints: HashMap<u64, Checkpoint>,
    checkpoints_at: BTreeSet<(Place, u64)>,
    /// Nodes on the device that nobody holds and without children there, by last use.
    device_leaves: BTreeSet<(u64, u64)>,
    /// Checkpoints on the device, by last use.
    device_checkpoints: BTreeSet<(u64, u64)>,
    host: Host,
    /// Names nodes and checkpoints.
    next_id: u64,
    /// Counts uses; orders them.
    clock: u64,
    counts: CacheCounts,
}

impl PrefixCache {
    pub(crate) fn new(block_size: u32, host: HostLimits) -> Self {
        Self {
            block_size: block_size as usize,
            nodes: HashMap::new(),
            index: BTreeMap::new(),
            checkpoints: HashMap::new(),
            checkpoints_at: BTreeSet::new(),
            device_leaves: BTreeSet::new(),
            device_checkpoints: BTreeSet::new(),
            host: Host::new(host),
            next_id: 0,
            clock: 0,
            counts: CacheCounts::default(),
        }
    }

    /// What happened so far, and what lies on the host; the device's bytes are not known here.
    pub(crate) fn counts(&self) -> CacheCounts {
        let mut counts = self.counts;
        counts.bytes.host = self.host.bytes();
        counts
    }

    /// Keeps a full block that a request has computed and holds, behind `parent`. The answer is the
    /// node and the block that the request holds from now on: another request may have computed
    /// the same tokens first, and then its block serves both.
    pub(crate) fn insert(
        &mut self,
        parent: Place,
        tokens: &[u32],
        block: u32,
        blocks: &mut BlockPool,
    ) -> (u64, u32) {
        if let Some(id) = self.index.get(&(parent, tokens.into())).copied() {
            self.hold(id, blocks);
            let node = self.node_mut(id);
            if let Home::Device(kept) = node.home {
                blocks.let_go(block);
                return (id, kept);
            }
            // Computed anew, for want of a state to begin from: the copy on the host is outdated.
            let Home::Host(item) = std::mem::replace(&mut node.home, Home::Device(block)) else {
                unreachable!("a home is on the device or on the host");
            };
            blocks.keep(block);
            self.count_device_child(parent);
            self.host.outdated(item);
            return (id, block);
        }
        let id = self.new_id();
        self.clock += 1;
        blocks.keep(block);
        self.index.insert((parent, tokens.into()), id);
        let node = Node {
            parent,
            tokens: tokens.into(),
            home: Home::Device(block),
            holders: 1,
            children: 0,
            device_children: 0,
            used: self.clock,
            then: Box::default(),
        };
        self.nodes.insert(id, node);
        if let Place::Node(parent) = parent {
            self.node_mut(parent).children += 1;
        }
        self.count_device_child(parent);
        (id, block)
    }

    /// A request begins to hold a node.
    fn hold(&mut self, id: u64, blocks: &mut BlockPool) {
        self.delist(id);
        self.clock += 1;
        let used = self.clock;
        let node = self.node_mut(id);
        node.used = used;
        node.holders += 1;
        if let Home::Device(block) = node.home {
            blocks.hold(block);
        }
    }

    /// A request lets go of its nodes; `then` is what it had computed behind them. Their blocks
    /// stay until the room is needed.
    pub(crate) fn let_go(&mut self, ids: &[u64], then: &[u32], blocks: &mut BlockPool) {
        if let Some(last) = ids.last() {
            self.node_mut(*last).then = then.into();
        }
        for id in ids.iter().rev() {
            let node = self.node_mut(*id);
            let Home::Device(block) = node.home else {
                unreachable!("what a request holds is on the device");
            };
            node.holders -= 1;
            blocks.let_go(block);
            self.list(*id);
        }
    }

    /// Nobody finds these nodes again, nor the states at their ends: what they hold made logits
    /// that are no numbers. `tokens` are those of the request that met them. Whoever else holds
    /// them goes on; their memory is free when it is needed.
    pub(crate) fn spoil(&mut self, key: u64, ids: &[u64], tokens: &[u32]) {
        for id in ids {
            self.unlist_place(*id);
            let at_its_end: Vec<_> = self.checkpoints_of(Place::Node(*id)).collect();
            for checkpoint in at_its_end {
                self.checkpoints_at.remove(&(Place::Node(*id), checkpoint));
            }
        }
        let root = Place::Root(key);
        let met = |id: &u64| tokens.starts_with(&self.checkpoints[id].tail);
        let in_its_first_block: Vec<_> = self.checkpoints_of(root).filter(met).collect();
        for checkpoint in in_its_first_block {
            self.checkpoints_at.remove(&(root, checkpoint));
        }
    }

    /// Takes a node out of the index, where another one may stand in its place by now.
    fn unlist_place(&mut self, id: u64) {
        let node = &self.nodes[&id];
        let place = (node.parent, node.tokens.clone());
        if self.index.get(&place) == Some(&id) {
            self.index.remove(&place);
        }
    }

    /// How many of these nodes some request holds.
    pub(crate) fn held(&self, ids: &[u64]) -> u32 {
        ids.iter().filter(|id| self.nodes[id].holders > 0).count() as u32
    }

    fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("nodes outlive their holders and their children")
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn count_device_child(&mut self, parent: Place) {
        if let Place::Node(parent) = parent {
            self.delist(parent);
            self.node_mut(parent).device_children += 1;
            self.list(parent);
        }
    }
}
