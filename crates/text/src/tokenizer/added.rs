//! Tokens that are found by their spelling before the text is split into words.

/// One added token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    /// Not shown to a reader.
    pub(super) special: bool,
}

impl Added {
    /// Whether its spelling in a message must not become the token: special tokens, and those that
    /// some models leave unmarked though they are spelled like them.
    pub(super) fn is_control(&self) -> bool {
        self.special || self.content.starts_with("<|")
    }
}

/// Finds added tokens: the leftmost, and of those that begin together the longest.
#[derive(Clone, Debug)]
pub(super) struct AddedTokens {
    /// By first byte, longest first; at most a few hundred in all.
    by_first_byte: Vec<Vec<Added>>,
}

impl AddedTokens {
    pub(super) fn new(tokens: impl IntoIterator<Item = Added>) -> Self {
        let mut by_first_byte = vec![Vec::new(); 256];
        for token in tokens {
            if let Some(first) = token.content.bytes().next() {
                by_first_byte[usize::from(first)].push(token);
            }
        }
        for tokens in &mut by_first_byte {
            tokens.sort_by_key(|token: &Added| std::cmp::Reverse(token.content.len()));
        }
        Self { by_first_byte }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Added> {
        self.by_first_byte.iter().flatten()
    }

    /// The first token at or after byte `from`, with the byte where it begins.
    pub(super) fn find(
        &self,
        text: &str,
        from: usize,
        wanted: impl Fn(&Added) -> bool,
    ) -> Option<(usize, &Added)> {
        let bytes = text.as_bytes();
        (from..bytes.len()).find_map(|at| {
            let candidates = &self.by_first_byte[usize::from(bytes[at])];
            let here =
                |token: &&Added| bytes[at..].starts_with(token.content.as_bytes()) && wanted(token);
            Some((at, candidates.iter().find(here)?))
        })
    }
}
