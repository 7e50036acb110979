//! The prefix cache: what earlier requests computed, by the tokens that it was computed from.
//!
//! Full KV blocks form a tree: a block's place is its parent and its own tokens, so a path from a
//! root spells a prefix, and two requests share exactly what they have in common. Tokens are
//! compared, not hashes of them. A model with recurrent layers cannot start from blocks alone: it
//! needs its state after exactly that many tokens. Such states are checkpoints: copies in slots of
//! their own, each at a position, together with the block that position falls into.
//!
//! Callers with different isolation keys have different roots and share nothing.

use std::collections::{BTreeSet, HashMap};

use crate::blocks::BlockPool;
use crate::state_slots::StateSlots;

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
    block: u32,
    children: u32,
    used: u64,
}

/// A recurrent state after the blocks up to `place` and the tokens of `tail`.
struct Checkpoint {
    place: Place,
    tail: Box<[u32]>,
    /// Holds the keys and values of `tail`; later tokens of whoever wrote it may follow there.
    tail_block: Option<u32>,
    slot: u32,
    used: u64,
}

/// What a prompt finds.
#[derive(Debug, Default)]
pub(crate) struct Hit {
    /// Nodes from the root on.
    pub(crate) nodes: Vec<u64>,
    /// Tokens that need not be computed.
    pub(crate) tokens: u32,
    /// For recurrent models: the slot to restore.
    pub(crate) slot: Option<u32>,
    /// The block whose beginning belongs to the hit, when the hit ends within a block.
    pub(crate) tail_block: Option<u32>,
}

/// See the module.
pub(crate) struct PrefixCache {
    block_size: usize,
    nodes: HashMap<u64, Node>,
    index: HashMap<(Place, Box<[u32]>), u64>,
    checkpoints: Vec<Checkpoint>,
    /// Nodes without children that no request holds, the least recently used first.
    evictable: BTreeSet<(u64, u64)>,
    next_node: u64,
    /// Counts uses; orders them.
    clock: u64,
}

impl PrefixCache {
    pub(crate) fn new(block_size: u32) -> Self {
        Self {
            block_size: block_size as usize,
            nodes: HashMap::new(),
            index: HashMap::new(),
            checkpoints: Vec::new(),
            evictable: BTreeSet::new(),
            next_node: 0,
            clock: 0,
        }
    }

    /// The longest computed beginning of `tokens` that leaves at least one token to compute.
    pub(crate) fn find(&mut self, key: u64, tokens: &[u32], recurrent: bool) -> Hit {
        let most = tokens.len() - 1;
        let path = self.path(key, &tokens[..most]);
        if !recurrent {
            let length = path.len() * self.block_size;
            return Hit { nodes: path, tokens: length as u32, ..Hit::default() };
        }
        let mut best = None;
        for (at, checkpoint) in self.checkpoints.iter().enumerate() {
            let depth = match checkpoint.place {
                Place::Root(root) if root == key => 0,
                Place::Root(_) => continue,
                Place::Node(node) => match path.iter().position(|id| *id == node) {
                    Some(depth) => depth + 1,
                    None => continue,
                },
            };
            let start = depth * self.block_size;
            let length = start + checkpoint.tail.len();
            let matches = length <= most && tokens[start..length] == *checkpoint.tail;
            if matches && best.is_none_or(|(_, _, longest)| length > longest) {
                best = Some((at, depth, length));
            }
        }
        let Some((at, depth, length)) = best else { return Hit::default() };
        self.clock += 1;
        let checkpoint = &mut self.checkpoints[at];
        checkpoint.used = self.clock;
        Hit {
            nodes: path[..depth].to_vec(),
            tokens: length as u32,
            slot: Some(checkpoint.slot),
            tail_block: checkpoint.tail_block,
        }
    }

    /// The nodes that spell the longest beginning of `tokens`.
    fn path(&self, key: u64, tokens: &[u32]) -> Vec<u64> {
        let mut place = Place::Root(key);
        let mut path = Vec::new();
        for block in tokens.chunks_exact(self.block_size) {
            let Some(node) = self.index.get(&(place, block.into())) else { break };
            path.push(*node);
            place = Place::Node(*node);
        }
        path
    }

    /// A request begins to hold a node; its block is the answer.
    pub(crate) fn hold(&mut self, node: u64, blocks: &mut BlockPool) -> u32 {
        self.clock += 1;
        let entry = self.nodes.get_mut(&node).expect("a node that was found");
        self.evictable.remove(&(entry.used, node));
        entry.used = self.clock;
        blocks.hold(entry.block);
        entry.block
    }

    /// How many blocks of these nodes no request holds yet.
    pub(crate) fn unheld(&self, nodes: &[u64], blocks: &BlockPool) -> u32 {
        nodes.iter().filter(|node| !blocks.is_held(self.nodes[node].block)).count() as u32
    }

    /// A request lets go of its nodes. Their blocks stay until the room is needed.
    pub(crate) fn let_go(&mut self, nodes: &[u64], blocks: &mut BlockPool) {
        for node in nodes.iter().rev() {
            blocks.let_go(self.nodes[node].block);
            self.list_if_evictable(*node, blocks);
        }
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
        if let Some(node) = self.index.get(&(parent, tokens.into())).copied() {
            let kept = self.hold(node, blocks);
            blocks.let_go(block);
            return (node, kept);
        }
        let node = self.next_node;
        self.next_node += 1;
        self.clock += 1;
        blocks.keep(block);
        self.index.insert((parent, tokens.into()), node);
        let (tokens, used) = (tokens.into(), self.clock);
        self.nodes.insert(node, Node { parent, tokens, block, children: 0, used });
        if let Place::Node(parent) = parent {
            self.nodes.get_mut(&parent).expect("a held parent").children += 1;
        }
        (node, block)
    }

    /// Whether the state after exactly these tokens is kept.
    pub(crate) fn has_checkpoint(&self, place: Place, tail: &[u32]) -> bool {
        self.checkpoints.iter().any(|kept| kept.place == place && *kept.tail == *tail)
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
        let (tail, used) = (tail.into(), self.clock);
        self.checkpoints.push(Checkpoint { place, tail, tail_block, slot, used });
    }

    /// Frees the slot of the least recently used checkpoint. False when there is none.
    pub(crate) fn evict_checkpoint(
        &mut self,
        blocks: &mut BlockPool,
        slots: &mut StateSlots,
    ) -> bool {
        let oldest = (0..self.checkpoints.len()).min_by_key(|at| self.checkpoints[*at].used);
        oldest.is_some_and(|at| {
            self.drop_checkpoint(at, blocks, slots);
            true
        })
    }

    /// Frees at least one block that only the cache keeps. False when there is none.
    pub(crate) fn evict_block(&mut self, blocks: &mut BlockPool, slots: &mut StateSlots) -> bool {
        if let Some((_, node)) = self.evictable.pop_first() {
            self.drop_node(node, blocks, slots);
            return true;
        }
        let with_own_block = |checkpoint: &Checkpoint| {
            checkpoint.tail_block.is_some_and(|block| !blocks.is_held(block))
        };
        let oldest = (0..self.checkpoints.len())
            .filter(|at| with_own_block(&self.checkpoints[*at]))
            .min_by_key(|at| self.checkpoints[*at].used);
        oldest.is_some_and(|at| {
            self.drop_checkpoint(at, blocks, slots);
            true
        })
    }

    fn drop_node(&mut self, id: u64, blocks: &mut BlockPool, slots: &mut StateSlots) {
        while let Some(at) = self.checkpoints.iter().position(|c| c.place == Place::Node(id)) {
            self.drop_checkpoint(at, blocks, slots);
        }
        let node = self.nodes.remove(&id).expect("an evictable node");
        assert_eq!(node.children, 0, "only leaves are evicted");
        self.index.remove(&(node.parent, node.tokens));
        blocks.drop_kept(node.block);
        if let Place::Node(parent) = node.parent {
            self.nodes.get_mut(&parent).expect("a parent outlives its children").children -= 1;
            self.list_if_evictable(parent, blocks);
        }
    }

    fn drop_checkpoint(&mut self, at: usize, blocks: &mut BlockPool, slots: &mut StateSlots) {
        let checkpoint = self.checkpoints.swap_remove(at);
        if let Some(block) = checkpoint.tail_block {
            blocks.drop_kept(block);
        }
        slots.give_back_checkpoint(checkpoint.slot);
    }

    fn list_if_evictable(&mut self, id: u64, blocks: &BlockPool) {
        let node = &self.nodes[&id];
        if node.children == 0 && !blocks.is_held(node.block) {
            self.evictable.insert((node.used, id));
        }
    }
}
