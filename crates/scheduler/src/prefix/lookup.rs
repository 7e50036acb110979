//! What a prompt finds.

use std::ops::Bound::{Excluded, Included, Unbounded};

use super::{Place, PrefixCache};

/// What a prompt finds.
#[derive(Debug, Default)]
pub(crate) struct Hit {
    /// Nodes from the root on.
    pub(crate) nodes: Vec<u64>,
    /// Tokens that need not be computed.
    pub(crate) tokens: u32,
    /// For recurrent models: the state to begin from.
    pub(super) checkpoint: Option<u64>,
    /// The first token that differs from the longest cached beginning; `None` when the prompt
    /// only goes on from there, or ends before.
    pub(crate) diverged_at: Option<u32>,
}

impl PrefixCache {
    /// The longest computed beginning of `tokens` that leaves at least one token to compute.
    pub(crate) fn find(&self, key: u64, tokens: &[u32], recurrent: bool) -> Hit {
        let mut nodes = self.path(key, &tokens[..tokens.len() - 1]);
        let diverged_at = self.divergence(key, &nodes, tokens);
        if !recurrent {
            let length = nodes.len() * self.block_size;
            return Hit { nodes, tokens: length as u32, checkpoint: None, diverged_at };
        }
        loop {
            let start = nodes.len() * self.block_size;
            let place = place(key, &nodes);
            if let Some((id, tail)) = self.longest_checkpoint(place, &tokens[start..]) {
                let tokens = (start + tail) as u32;
                return Hit { nodes, tokens, checkpoint: Some(id), diverged_at };
            }
            if nodes.pop().is_none() {
                return Hit { diverged_at, ..Hit::default() };
            }
        }
    }

    /// The nodes that spell the longest beginning of `tokens`.
    fn path(&self, key: u64, tokens: &[u32]) -> Vec<u64> {
        let mut path = Vec::new();
        for block in tokens.chunks_exact(self.block_size) {
            let Some(node) = self.index.get(&(place(key, &path), block.into())) else { break };
            path.push(*node);
        }
        path
    }

    /// The checkpoint here with the longest tail that `rest` begins with, and the tail's length.
    fn longest_checkpoint(&self, place: Place, rest: &[u32]) -> Option<(u64, usize)> {
        let fitting = self.checkpoints_of(place).filter_map(|id| {
            let tail = &self.checkpoints[&id].tail;
            let leaves_one = tail.len() < rest.len();
            (leaves_one && rest.starts_with(tail)).then_some((id, tail.len()))
        });
        fitting.max_by_key(|(_, length)| *length)
    }

    /// Where `tokens` part from what is cached behind `path`, if they do.
    fn divergence(&self, key: u64, path: &[u64], tokens: &[u32]) -> Option<u32> {
        let start = path.len() * self.block_size;
        let (place, rest) = (place(key, path), &tokens[start..]);
        // Sorted neighbours share the longest beginnings.
        let at: Box<[u32]> = rest[..rest.len().min(self.block_size)].into();
        let before = self.index.range((Unbounded, Excluded(&(place, at.clone())))).next_back();
        let after = self.index.range((Included(&(place, at)), Unbounded)).next();
        let children = [before, after].into_iter().flatten().map(|(key, _)| key);
        let children = children.filter(|(parent, _)| *parent == place).map(|(_, tokens)| tokens);
        let then = path.last().map(|id| &self.nodes[id].then).filter(|then| !then.is_empty());
        let mut longest = None;
        for known in children.chain(then) {
            let common = known.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common == known.len().min(rest.len()) {
                return None;
            }
            longest = longest.max(Some(common));
        }
        longest.map(|common| (start + common) as u32)
    }
}

fn place(key: u64, path: &[u64]) -> Place {
    path.last().map_or(Place::Root(key), |node| Place::Node(*node))
}
