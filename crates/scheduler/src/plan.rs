//! A step as plain data: what to compute, and what came of it.

use crate::{End, RequestId};

/// Names a copy of one block or one state in host memory; never used twice.
pub type HostItem = u64;

/// What is copied before anything is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// The recurrent state of slot `from`, of every layer, to slot `to`.
    State {
        /// Where it is.
        from: u32,
        /// Where it goes.
        to: u32,
    },
    /// The keys and values of block `from`, of every layer, to block `to`.
    Block {
        /// Where they are.
        from: u32,
        /// Where they go.
        to: u32,
    },
    /// The keys and values of a block, of every layer, to the host.
    SaveBlock {
        /// Where they are.
        block: u32,
        /// A new item.
        item: HostItem,
    },
    /// And back, into any block; the host keeps its copy.
    LoadBlock {
        /// What [`Copy::SaveBlock`] made.
        item: HostItem,
        /// Where they go.
        block: u32,
    },
    /// The recurrent state of a slot, of every layer, to the host.
    SaveState {
        /// Where it is.
        slot: u32,
        /// A new item.
        item: HostItem,
    },
    /// And back, into any slot; the host keeps its copy.
    LoadState {
        /// What [`Copy::SaveState`] made.
        item: HostItem,
        /// Where it goes.
        slot: u32,
    },
    /// An item's memory is free again.
    Forget {
        /// The item.
        item: HostItem,
    },
}

/// A request that a step begins with, or begins with again after it was preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The request.
    pub request: RequestId,
    /// Tokens that the prefix cache supplied.
    pub cached_tokens: u32,
    /// The first token that differs from the longest cached beginning of the prompt, used or not.
    /// `None` when nothing differs: the prompt goes on from there, or ends before.
    pub diverged_at: Option<u32>,
}

/// One request's share of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The request.
    pub request: RequestId,
    /// Tokens already in the caches; 0 means that recurrent state starts from zero.
    pub start: u32,
    /// The tokens to compute, at positions `start..start + tokens.len()`.
    pub tokens: Vec<u32>,
    /// The request's KV blocks in order: token `t` is in block `blocks[t / block_size]`.
    pub blocks: Vec<u32>,
    /// The request's recurrent state slot, for models that have recurrent layers.
    pub slot: Option<u32>,
    /// Whether the last of `tokens` is the last known one, so that its successor is sampled.
    pub sample: bool,
}

/// One step, for all requests that take part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// Made one after the other, before any entry is computed: a slot or block that one of them
    /// overwrites may have been the source of an earlier one.
    pub copies: Vec<Copy>,
    /// Requests that take part for the first time.
    pub admitted: Vec<Admission>,
    /// At most one entry a request.
    pub entries: Vec<Entry>,
    /// Each entry's token is the one that the step before chooses for the entry at its place;
    /// what `tokens` holds does not count. See [`crate::Scheduler::schedule_ahead`].
    pub ahead: bool,
}

impl StepPlan {
    /// Tokens computed in this step.
    pub fn tokens(&self) -> u32 {
        self.entries.iter().map(|entry| entry.tokens.len() as u32).sum()
    }

    pub(crate) fn contains(&self, id: RequestId) -> bool {
        self.entries.iter().any(|entry| entry.request == id)
    }

    /// Takes a request out again and says how many tokens that frees.
    pub(crate) fn withdraw(&mut self, id: RequestId) -> u32 {
        let Some(at) = self.entries.iter().position(|entry| entry.request == id) else { return 0 };
        self.entries.remove(at).tokens.len() as u32
    }
}

/// What came of an entry that samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// The next token.
    Token(u32),
    /// The row's logits were not finite; this ends the request and no other. What they came from
    /// is used for nobody else.
    NotFinite,
    /// It could not be told any more what to choose: the request goes back to the line, and what
    /// it has is computed again.
    Lost,
    /// Nothing may be chosen by the request's own rules, which says nothing of what is in the
    /// caches; this ends the request and no other.
    Nothing,
}

/// What a step did for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The request.
    pub request: RequestId,
    /// The new token; `None` when the row failed.
    pub token: Option<u32>,
    /// Set when the request is over; its blocks and slot are free by then.
    pub end: Option<End>,
}
