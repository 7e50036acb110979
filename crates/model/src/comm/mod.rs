//! How ranks of one model add up and gather their partial results.

mod barrier;
mod local;

pub use local::{LocalGroup, LocalRank};

/// A rank's connection to the others.
#[derive(Clone, Debug)]
pub enum Comm {
    /// There are no others.
    Solo,
    /// Ranks are threads of this process.
    Local(LocalRank),
}

impl Comm {
    /// Whether this is the only rank.
    pub fn is_solo(&self) -> bool {
        matches!(self, Self::Solo)
    }

    /// Replaces `values` by the sum over all ranks, in the order of the ranks, so that every rank
    /// holds the same bits. Every rank calls it equally often with equally many values.
    pub fn all_reduce(&self, values: &mut [f32]) {
        match self {
            Self::Solo => {}
            Self::Local(rank) => rank.all_reduce(values),
        }
    }

    /// Every rank's values, in the order of the ranks. Every rank calls it equally often; they may
    /// bring different numbers of values.
    pub fn all_gather(&self, values: Vec<f32>) -> Vec<Vec<f32>> {
        match self {
            Self::Solo => vec![values],
            Self::Local(rank) => rank.all_gather(values),
        }
    }
}
