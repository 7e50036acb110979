//! The machine: what it is, its cards, its memory, and what a model on it is to run on.

pub mod cards;
pub(crate) mod device;
pub mod discover;
pub(crate) mod memory;
pub(crate) mod readings;
