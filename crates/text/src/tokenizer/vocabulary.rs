//! A byte-level BPE vocabulary as GGUF files hold it, in the form of a `tokenizer.json`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::TextError;

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The `tokenizer.ggml.*` arrays of a GGUF file with `model = "gpt2"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// Spelling by id; ordinary tokens in the byte-level alphabet.
    pub tokens: Vec<String>,
    /// Pairs that are merged, each as two spellings with a space between, best first.
    pub merges: Vec<String>,
    /// Per token: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused. Empty when all are
    /// normal.
    pub token_types: Vec<i32>,
    /// How text is split into words: `qwen2` or `qwen35`.
    pub pre: String,
}

impl Vocabulary {
    /// The same tokenizer as JSON, validated as far as the JSON's reader will not do it.
    pub(super) fn to_json(&self) -> Result<Value, TextError> {
        let bad = |reason: String| Err(TextError::BadTokenizer(reason));
        let (tokens, types) = (self.tokens.len(), self.token_types.len());
        if types != 0 && types != tokens {
            return bad(format!("{tokens} tokens have {types} token types, expected one each"));
        }
        let mut seen = HashSet::new();
        let (mut vocab, mut added) = (Map::new(), Vec::new());
        for (id, token) in self.tokens.iter().enumerate() {
            let kind = self.token_types.get(id).copied().unwrap_or(NORMAL);
            // Among those that do not exist here is the byte: this alphabet spells bytes itself.
            if !(NORMAL..=UNUSED).contains(&kind) {
                return bad(format!("token {id} is of the type {kind}, expected 1 to 5"));
            }
            if kind == UNUSED {
                continue;
            }
            if !seen.insert(token) {
                return bad(format!("token {id} is spelled {token:?} like one before it"));
            }
            if kind == CONTROL || kind == USER_DEFINED {
                added.push(json!({"id": id, "content": token, "special": kind == CONTROL}));
            } else {
                vocab.insert(token.clone(), id.into());
            }
        }
        let mut merges = Vec::with_capacity(self.merges.len());
        for merge in &self.merges {
            match merge.split_once(' ') {
                Some((left, right)) => merges.push(json!([left, right])),
                None => return bad(format!("merge {merge:?} is no pair of tokens")),
            }
        }
        Ok(json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": pre_tokenizer(&self.pre)?,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false},
            "model": {"type": "BPE", "vocab": vocab, "merges": merges},
        }))
    }
}

/// How the two families of Qwen split words: they differ in whether marks join letters.
fn pre_tokenizer(pre: &str) -> Result<Value, TextError> {
    let letters = match pre {
        "qwen2" => r"\p{L}",
        "qwen35" => r"\p{L}\p{M}",
        other => {
            let reason = format!("pre-tokenizer {other:?} is not known, expected qwen2 or qwen35");
            return Err(TextError::BadTokenizer(reason));
        }
    };
    let pattern = [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)".to_owned(),
        format!(r"[^\r\n\p{{L}}\p{{N}}]?[{letters}]+"),
        r"\p{N}".to_owned(),
        format!(r" ?[^\s{letters}\p{{N}}]+[\r\n]*"),
        r"\s*[\r\n]+".to_owned(),
        r"\s+(?!\S)".to_owned(),
        r"\s+".to_owned(),
    ]
    .join("|");
    Ok(json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
    ]}))
}
