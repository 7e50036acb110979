//! What is known of a card, and what a step of it may hold.

/// Whether this program has code for cards at all.
pub const BUILT_IN: bool = cfg!(feature = "cuda");

/// What a card is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// In the driver's words.
    pub name: String,
    /// Compute capability, for example 90.
    pub generation: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of the second-level cache.
    pub l2_bytes: u64,
    /// Shared memory that one thread block may have.
    pub shared_bytes: u32,
    /// Bytes of device memory.
    pub memory_bytes: u64,
}

/// What no step exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCapacity {
    /// Rows of a step.
    pub rows: usize,
    /// Sequences of a step, and rows whose logits are wanted.
    pub sequences: usize,
    /// Blocks of a sequence.
    pub blocks: usize,
}
