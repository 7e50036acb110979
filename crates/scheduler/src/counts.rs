//! What the prefix cache did, in numbers.

/// The host's part of the prefix cache, and what items take there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLimits {
    /// Bytes that all items together may take; 0 keeps nothing on the host.
    pub budget_bytes: u64,
    /// Bytes of one block, of all layers and all ranks.
    pub block_bytes: u64,
    /// Bytes of one recurrent state, of all layers and all ranks.
    pub state_bytes: u64,
}

/// One number for each tier of the prefix cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByTier {
    /// Blocks and slots that a step can use where they lie.
    pub device: u64,
    /// Copies in host memory.
    pub host: u64,
}

/// What the prefix cache did since the start, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Prompt tokens of all requests that began, each counted once.
    pub looked_up_tokens: u64,
    /// Tokens of them that were found, by where their keys and values lay.
    pub hit_tokens: ByTier,
    /// Blocks and states that had to leave a tier.
    pub evictions: ByTier,
    /// Bytes that are kept now.
    pub bytes: ByTier,
}
