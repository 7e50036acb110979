//! The daemon of a GPU host: it finds the hardware, runs each model in an engine child of its
//! own, and answers for them over HTTP.
#![forbid(unsafe_code)]

pub mod child;
pub mod link;
