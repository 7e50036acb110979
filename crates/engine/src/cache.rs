//! What the engine tells of its prefix cache.

use serde::{Deserialize, Serialize};

/// How the prefix cache was set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixCacheInfo {
    /// Why requests do not reuse what earlier ones computed; `None` when they do.
    pub off: Option<String>,
    /// Bytes of the KV blocks and of the slots for kept states, of all ranks.
    pub device_bytes: u64,
    /// Bytes of host memory that may be filled, of all ranks.
    pub host_bytes: u64,
}

/// One number for each tier of the prefix cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByTier {
    /// Where a step can use it as it lies.
    pub device: u64,
    /// In host memory.
    pub host: u64,
}

/// What the prefix cache did since the load, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCounts {
    /// Prompt tokens of all requests that began.
    pub looked_up_tokens: u64,
    /// Tokens of them that were found, by where their keys and values lay.
    pub hit_tokens: ByTier,
    /// Blocks and states that had to leave a tier.
    pub evictions: ByTier,
    /// Bytes that are kept now.
    pub bytes: ByTier,
}

impl From<scheduler::ByTier> for ByTier {
    fn from(of: scheduler::ByTier) -> Self {
        Self { device: of.device, host: of.host }
    }
}

impl From<scheduler::CacheCounts> for CacheCounts {
    fn from(of: scheduler::CacheCounts) -> Self {
        Self {
            looked_up_tokens: of.looked_up_tokens,
            hit_tokens: of.hit_tokens.into(),
            evictions: of.evictions.into(),
            bytes: of.bytes.into(),
        }
    }
}
