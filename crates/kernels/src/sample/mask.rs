//! Which tokens a grammar allows.

use std::sync::Arc;

/// A set of token ids, a bit each; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask(Arc<[u32]>);

impl TokenMask {
    /// Takes words of 32 ids over, the lowest id in the lowest bit of the first word. Ids beyond
    /// the last word are not allowed.
    pub fn from_words(words: impl Into<Arc<[u32]>>) -> Self {
        Self(words.into())
    }

    /// The bits, as [`TokenMask::from_words`] takes them.
    pub fn words(&self) -> &[u32] {
        &self.0
    }

    /// Whether this token may be chosen.
    pub fn allows(&self, id: u32) -> bool {
        let word = self.0.get(id as usize / 32).copied().unwrap_or(0);
        word >> (id % 32) & 1 == 1
    }
}

impl FromIterator<u32> for TokenMask {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut words = Vec::new();
        for id in ids {
            let word = id as usize / 32;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (id % 32);
        }
        Self::from_words(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_allows_its_ids_and_no_others() {
        let ids = [0, 31, 32, 95];
        let mask: TokenMask = ids.into_iter().collect();
        let allowed: Vec<u32> = (0..200).filter(|id| mask.allows(*id)).collect();
        assert_eq!(allowed, ids);
        assert_eq!(mask.words(), [1 | 1 << 31, 1, 1 << 31]);
    }
}
