//! Mixtures of experts in a configuration.

use std::path::Path;

use super::{Keys, LARGEST};
use crate::Error;

/// The most experts that a layer can have; the largest published models have 512.
const MOST_EXPERTS: usize = 2048;

/// The sizes of a feed-forward layer that is a mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoeConfig {
    /// Experts in all.
    pub experts: usize,
    /// Experts of a token.
    pub experts_used: usize,
    /// Width of an expert.
    pub ffn: usize,
    /// Width of the expert that every token uses, if there is one.
    pub shared_ffn: Option<usize>,
    /// Whether the weights of a token's experts are made to add up to 1.
    pub renormalise: bool,
}

impl MoeConfig {
    pub(super) fn check(&self, file: &Path, keys: &Keys) -> Result<(), Error> {
        let range = |key: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::config(file, key, format!("1 to {most}"), value.to_string()))
        };
        range(keys.experts, self.experts, MOST_EXPERTS)?;
        range(keys.experts_used, self.experts_used, self.experts)?;
        range(keys.expert_ffn, self.ffn, LARGEST)?;
        range(keys.shared_ffn, self.shared_ffn.unwrap_or(1), LARGEST)
    }
}
