//! Norms and rotates queries and keys, and writes keys and values into their blocks.
//!
//! Each query and key head is normalised over `head_dim`, then its first `rotary_dim` elements are
//! rotated in pairs `(i, i + rotary_dim / 2)` by the angle `position * theta^(-2i / rotary_dim)`.
//! Keys are stored rotated. Values are stored as they are.

pub mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod tests;
