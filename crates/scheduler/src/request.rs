//! A request as the scheduler sees it: tokens, and how many of them are computed.

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
    /// Tokens to generate at most; at least 1.
    pub max_tokens: u32,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<u32>,
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
    pub(crate) blocks: Vec<u32>,
    pub(crate) slot: Option<u32>,
}

impl Request {
    pub(crate) fn new(new: NewRequest) -> Self {
        Self {
            id: new.id,
            prompt_len: new.prompt.len() as u32,
            tokens: new.prompt,
            max_tokens: new.max_tokens,
            stop_tokens: new.stop_tokens,
            num_computed: 0,
            blocks: Vec::new(),
            slot: None,
        }
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
        let Sampled::Token(token) = sampled else {
            return Update { request: self.id, token: None, end: Some(End::NotFinite) };
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
