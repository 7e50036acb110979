//! Byte-level BPE tokenizers, from a `tokenizer.json` or from a GGUF file's vocabulary.

mod added;
mod byte_level;
mod vocabulary;

use serde::Deserialize;
use serde_json::Value;

use crate::TextError;
use added::{Added, AddedTokens};
pub use vocabulary::Vocabulary;

/// Whether the spelling of an added token in a text becomes that token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// It does.
    Parse,
    /// The spelling is text like any other.
    AsText,
}

/// Text -> ids, and ids -> bytes.
pub struct Tokenizer {
    /// Knows no added tokens: these are found here, so that text can be kept from becoming one.
    plain: tokenizers::Tokenizer,
    added: AddedTokens,
    /// `bytes[ends[id - 1]..ends[id]]` is what the token `id` spells.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Bytes of the longest token: no text has fewer ids than its bytes divided by this.
    longest: usize,
    special: Vec<bool>,
}

#[derive(Deserialize)]
struct AddedEntry {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`TextError::BadTokenizer`] for anything but a byte-level BPE tokenizer in good order.
    pub fn from_json(json: &[u8]) -> Result<Self, TextError> {
        let value = serde_json::from_slice(json)
            .map_err(|error| TextError::BadTokenizer(format!("tokenizer.json: {error}")))?;
        Self::from_value(value)
    }

    /// Builds the tokenizer of a GGUF file; the ids are those of the model's `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`TextError::BadTokenizer`] for arrays that contradict each other or an unknown `pre`.
    pub fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        Self::from_value(vocabulary.to_json()?)
    }

    fn from_value(mut json: Value) -> Result<Self, TextError> {
        let bad = |reason: String| TextError::BadTokenizer(reason);
        let is_byte_level = json.get("decoder").is_some_and(|decoder| names_byte_level(decoder, 0));
        if json["model"]["type"] != "BPE" || !is_byte_level {
            return Err(bad("only byte-level BPE tokenizers are supported".to_owned()));
        }
        let entries = json.get_mut("added_tokens").map_or(Value::Null, Value::take);
        let entries: Option<Vec<AddedEntry>> = serde_json::from_value(entries)
            .map_err(|error| bad(format!("added_tokens: {error}")))?;
        let entries = entries.unwrap_or_default();
        if let Some(entry) =
            entries.iter().find(|entry| entry.single_word || entry.lstrip || entry.rstrip)
        {
            let content = &entry.content;
            let reason = format!("added token {content:?} uses single_word, lstrip or rstrip");
            return Err(bad(reason));
        }
        // What the library would do besides encoding: shorten, pad and frame prompts.
        for part in ["truncation", "padding", "post_processor"] {
            json[part] = Value::Null;
        }
        json["added_tokens"] = Value::Array(Vec::new());
        let text = json.to_string();
        let plain =
            tokenizers::Tokenizer::from_bytes(text).map_err(|error| bad(error.to_string()))?;
        Self::assemble(plain, entries)
    }

    fn assemble(plain: tokenizers::Tokenizer, entries: Vec<AddedEntry>) -> Result<Self, TextError> {
        /// Far above any vocabulary; ids are held in a table.
        const MOST_IDS: u32 = 1 << 24;
        let vocab = plain.get_vocab(false);
        let ids = vocab.values().copied().chain(entries.iter().map(|entry| entry.id));
        let size = ids.max().map_or(0, |last| last.saturating_add(1));
        if size > MOST_IDS {
            let reason = format!("id {} is above the limit of {MOST_IDS}", size - 1);
            return Err(TextError::BadTokenizer(reason));
        }
        let mut spelled = vec![Vec::new(); size as usize];
        let mut special = vec![false; size as usize];
        for (token, id) in &vocab {
            let bytes = byte_level::bytes_of(token);
            spelled[*id as usize] = bytes.unwrap_or_else(|| token.as_bytes().to_vec());
        }
        for entry in &entries {
            spelled[entry.id as usize] = entry.content.as_bytes().to_vec();
            special[entry.id as usize] = entry.special;
        }
        let added = entries.into_iter().map(|entry| Added {
            id: entry.id,
            content: entry.content,
            special: entry.special,
        });
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(spelled.len()));
        for token in &spelled {
            bytes.extend_from_slice(token);
            ends.push(bytes.len());
        }
        let longest = spelled.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Self { plain, added: AddedTokens::new(added), bytes, ends, longest, special })
    }

    /// The ids of a text; nothing is put before or behind it.
    ///
    /// # Errors
    ///
    /// [`TextError::BadTokenizer`] when the vocabulary cannot spell the text.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TextError> {
        match specials {
            Specials::Parse => self.encode_rendered(text, None, None),
            Specials::AsText => {
                let mut ids = Vec::new();
                self.encode_plain(text, None, &mut ids)?;
                Ok(ids)
            }
        }
    }

    /// The ids of a text whose `sentinel` characters keep spellings from becoming tokens and are
    /// no part of the text themselves. Work on a text of more than `limit` ids ends early.
    pub(crate) fn encode_rendered(
        &self,
        text: &str,
        sentinel: Option<char>,
        limit: Option<u32>,
    ) -> Result<Vec<u32>, TextError> {
        check_limit(text.len() / self.longest.max(1), limit)?;
        let mut ids = Vec::new();
        let mut from = 0;
        loop {
            let found = self.added.find(text, from, |_| true);
            let end = found.map_or(text.len(), |(at, _)| at);
            let piece = &text[from..end];
            match sentinel {
                Some(sentinel) if piece.contains(sentinel) => {
                    self.encode_plain(&piece.replace(sentinel, ""), limit, &mut ids)?;
                }
                _ => self.encode_plain(piece, limit, &mut ids)?,
            }
            let Some((at, token)) = found else { return Ok(ids) };
            ids.push(token.id);
            from = at + token.content.len();
        }
    }

    /// Long texts go through the library piece by piece: it holds a hundred bytes for each byte.
    fn encode_plain(
        &self,
        mut text: &str,
        limit: Option<u32>,
        ids: &mut Vec<u32>,
    ) -> Result<(), TextError> {
        while !text.is_empty() {
            let (piece, rest) = text.split_at(piece_end(text));
            let encoding = self.plain.encode_fast(piece, false);
            let encoding = encoding.map_err(|error| TextError::BadTokenizer(error.to_string()))?;
            ids.extend_from_slice(encoding.get_ids());
            check_limit(ids.len(), limit)?;
            text = rest;
        }
        Ok(())
    }

    /// What a token spells; empty for ids that the vocabulary leaves out.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..*end]
    }

    /// Whether a token is marked as special: never shown to a reader.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// The tokens that are found by their spelling before a text is split into words.
    pub fn added(&self) -> impl Iterator<Item = u32> {
        self.added.iter().map(|added| added.id)
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        let added = self.added.iter().find(|added| added.content == token);
        added.map(|added| added.id).or_else(|| self.plain.token_to_id(token))
    }

    /// One more than the greatest id.
    pub fn vocab_size(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// Whether the text holds the spelling of a control token.
    pub(crate) fn spells_control(&self, text: &str) -> bool {
        self.added.find(text, 0, Added::is_control).is_some()
    }

    /// The text with `sentinel` behind the first letter of every spelling of a control token.
    pub(crate) fn break_control(&self, text: &str, sentinel: char) -> String {
        let mut broken = String::with_capacity(text.len() + 16);
        let mut from = 0;
        while let Some((at, token)) = self.added.find(text, from, Added::is_control) {
            let first = token.content.chars().next().map_or(1, char::len_utf8);
            broken.push_str(&text[from..at + first]);
            broken.push(sentinel);
            from = at + first;
        }
        broken.push_str(&text[from..]);
        broken
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

/// Where a long text can be cut with the ids unchanged: no pre-tokenizer joins a letter with the
/// space behind it. Only a single word of many kilobytes is cut within.
fn piece_end(text: &str) -> usize {
    const LONGEST_BYTES: usize = 64 << 10;
    if text.len() <= LONGEST_BYTES {
        return text.len();
    }
    let window = &text[..text.floor_char_boundary(LONGEST_BYTES)];
    let mut spaces = window.rmatch_indices(' ').map(|(at, _)| at);
    let behind_letter = |at: &usize| window[..*at].ends_with(char::is_alphabetic);
    spaces.find(behind_letter).unwrap_or(window.len())
}

fn check_limit(tokens: usize, limit: Option<u32>) -> Result<(), TextError> {
    match limit {
        Some(limit) if tokens > limit as usize => {
            let at_least = u32::try_from(tokens).unwrap_or(u32::MAX);
            Err(TextError::PromptTooLong { at_least, limit })
        }
        _ => Ok(()),
    }
}

/// Whether a decoder, or one of a sequence of them, is the byte-level one.
fn names_byte_level(decoder: &Value, depth: usize) -> bool {
    const DEEPEST: usize = 4;
    decoder["type"] == "ByteLevel"
        || depth < DEEPEST
            && decoder["decoders"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| names_byte_level(one, depth + 1)))
}
