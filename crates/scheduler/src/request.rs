//! A request as the scheduler sees it: tokens, and how many of them are computed.

use crate::prefix::Place;
use crate::{Entry, Sampled, Update};

/// Names a request for as long as it lives; chosen by whoever submits it.
pub type RequestId = u64;

/// What a caller submits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRequest {
    /// Unique among live requests.
    pub id: RequestId,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// The beginning of the answer, where an earlier run of the request got so far. It is computed
    /// like the prompt and counts as generated; less than `max_tokens`.
    pub answered: Vec<u32>,
    /// Tokens to generate at most; at least 1.
    pub max_tokens: u32,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<u32>,
    /// Positions of the prompt after which later prompts may go on differently: there
    /// recurrent state is worth keeping.
    pub boundaries: Vec<u32>,
    /// Requests share a prefix with those of the same key alone.
    pub isolation: u64,
}

/// Why a request is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A stop token was sampled.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The row's logits were not finite.
    NotFinite,
    /// Nothing might be chosen.
    Nothing,
}

pub(crate) struct Request {
    pub(crate) id: RequestId,
    /// Prompt, then what was sampled.
    tokens: Vec<u32>,
    prompt_len: u32,
    max_tokens: u32,
    stop_tokens: Vec<u32>,
    /// Tokens whose keys, values and state are in the caches.
    pub(crate) num_computed: u32,
    /// The first ones are those of `nodes`, the others are its own.
    pub(crate) blocks: Vec<u32>,
    /// Places of the prefix cache that it holds, from the root on.
    pub(crate) nodes: Vec<u64>,
    pub(crate) slot: Option<u32>,
    boundaries: Vec<u32>,
    pub(crate) isolation: u64,
    /// Whether the prefix cache was asked for it before.
    pub(crate) looked_up: bool,
    /// Requests that came later and were admitted before.
    pub(crate) passed: u32,
}

impl Request {
    pub(crate) fn new(new: NewRequest) -> Self {
        let mut boundaries = new.boundaries;
        boundaries.retain(|at| (1..=new.prompt.len() as u32).contains(at));
        boundaries.sort_unstable();
        boundaries.dedup();
        let prompt_len = new.prompt.len() as u32;
        let mut tokens = new.prompt;
        tokens.extend(new.answered);
        Self {
            id: new.id,
            prompt_len,
            tokens,
            max_tokens: new.max_tokens,
            stop_tokens: new.stop_tokens,
            num_computed: 0,
            blocks: Vec::new(),
            nodes: Vec::new(),
            slot: None,
            boundaries,
            isolation: new.isolation,
            looked_up: false,
            passed: 0,
        }
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether the state after the tokens computed so far is worth keeping.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.boundaries.binary_search(&self.num_computed).is_ok()
    }

    /// Tokens until the next boundary, if one is ahead.
    pub(crate) fn to_boundary(&self) -> Option<u32> {
        let next = self.boundaries.partition_point(|at| *at <= self.num_computed);
        self.boundaries.get(next).map(|at| at - self.num_computed)
    }

    /// Whether its answer goes on, for all that is known, behind a token that is chosen now, and
    /// the state after `reached` tokens need not be kept.
    pub(crate) fn goes_on_behind(&self, reached: u32) -> bool {
        let generated = self.tokens.len() as u32 + 1 - self.prompt_len;
        generated < self.max_tokens && self.boundaries.binary_search(&reached).is_err()
    }

    /// The last boundary that is not behind `position`; 0 if there is none.
    pub(crate) fn last_boundary(&self, position: u32) -> u32 {
        let behind = self.boundaries.partition_point(|at| *at <= position);
        behind.checked_sub(1).map_or(0, |last| self.boundaries[last])
    }

    /// The last place of the prefix cache that it holds.
    pub(crate) fn place(&self) -> Place {
        self.nodes.last().map_or(Place::Root(self.isolation), |node| Place::Node(*node))
    }

    /// Tokens known and not computed; at least 1 for every live request.
    pub(crate) fn missing(&self) -> u32 {
        self.tokens.len() as u32 - self.num_computed
    }

    /// Blocks to take so that `count` more tokens have room.
    pub(crate) fn blocks_needed(&self, count: u32, block_size: u32) -> u32 {
        (self.num_computed + count).div_ceil(block_size).saturating_sub(self.blocks.len() as u32)
    }

    /// The share of a step that computes the next `count` tokens.
    pub(crate) fn entry(&self, count: u32) -> Entry {
        let start = self.num_computed as usize;
        let end = start + count as usize;
        Entry {
            request: self.id,
            start: self.num_computed,
            tokens: self.tokens[start..end].to_vec(),
            blocks: self.blocks.clone(),
            slot: self.slot,
            sample: end == self.tokens.len(),
        }
    }

    /// Appends what was sampled and says whether that was the last.
    pub(crate) fn accept(&mut self, sampled: Sampled) -> Update {
        let failed = |end| Update { request: self.id, token: None, end: Some(end) };
        let token = match sampled {
            Sampled::Token(token) => token,
            Sampled::NotFinite => return failed(End::NotFinite),
            Sampled::Nothing => return failed(End::Nothing),
            Sampled::Lost => unreachable!("such a request is back in the line"),
        };
        self.tokens.push(token);
        let generated = self.tokens.len() as u32 - self.prompt_len;
        let end = if self.stop_tokens.contains(&token) {
            Some(End::Stop)
        } else if generated >= self.max_tokens {
            Some(End::Length)
        } else {
            None
        };
        Update { request: self.id, token: Some(token), end }
    }
}
