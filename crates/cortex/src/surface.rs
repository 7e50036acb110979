//! The inference routes that cortex forwards, one entry each.

use wire::Dialect;

/// One inference route.
pub(crate) struct Surface {
    /// The path, the same on both sides.
    pub path: &'static str,
    /// The dialect of its streams and errors.
    pub dialect: Dialect,
}

impl Surface {
    /// Whether its answers cost tokens.
    pub(crate) fn generates(&self) -> bool {
        self.path == self.dialect.path() || self.path == "/v1/embeddings"
    }
}

const fn surface(path: &'static str, dialect: Dialect) -> Surface {
    Surface { path, dialect }
}

/// Every inference route.
pub(crate) static SURFACES: [Surface; 8] = [
    surface("/v1/chat/completions", Dialect::OpenaiChat),
    surface("/v1/completions", Dialect::OpenaiCompletions),
    surface("/v1/responses", Dialect::OpenaiResponses),
    surface("/v1/messages", Dialect::Anthropic),
    surface("/v1/messages/count_tokens", Dialect::Anthropic),
    surface("/v1/embeddings", Dialect::OpenaiChat),
    surface("/tokenize", Dialect::OpenaiChat),
    surface("/detokenize", Dialect::OpenaiChat),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_has_its_route() {
        for dialect in Dialect::ALL {
            let found = SURFACES.iter().find(|surface| surface.path == dialect.path());
            assert_eq!(found.map(|surface| surface.dialect), Some(dialect));
        }
        for surface in &SURFACES {
            assert_eq!(Dialect::of_request(surface.path, false), surface.dialect);
        }
    }
}
