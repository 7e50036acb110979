//! What a request says about the form of its answer, in tokens.

use serde::{Deserialize, Serialize};

/// What a model's tokens spell. The engine reads no tokenizer; whoever drives it says this once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// The bytes of each token by its id; empty for ids that spell nothing.
    pub bytes: Vec<Vec<u8>>,
    /// Ids that stand for themselves: no text spells them, and a grammar names them by their id.
    pub specials: Vec<u32>,
}

/// The language that an answer is written in, as text in the Lark dialect of the `llguidance`
/// crate. A special token is written `<[id]>`, a JSON schema `%json {…}`.
///
/// Each token of the answer leaves the answer a prefix of the language, and a stop token comes
/// exactly where the answer is a whole word of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grammar(pub String);
