//! The tokenizer and the chat template as GGUF metadata.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::config::Json;
use crate::gguf::write::{Header, NewValue};
use crate::load::{read_json, read_text};
use crate::{Error, ModelConfig};

/// The kinds of token that the format knows, as far as they occur here.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The patterns that split text into words, and their names in the format.
const SPLITS: [(&str, &str); 2] = [
    (
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        "qwen2",
    ),
    (
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|",
            r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        "qwen35",
    ),
];

/// Puts what the directory has of a tokenizer and a chat template.
pub(super) fn put(header: &mut Header, source: &Path, config: &ModelConfig) -> Result<(), Error> {
    let path = source.join("tokenizer.json");
    if !path.exists() {
        // Readers want to be told that there is none.
        header.put("tokenizer.ggml.model", "no_vocab");
        return Ok(());
    }
    let json = read_json(&path)?;
    let tokenizer = Tokenizer::read(&path, &json, config.vocab_size)?;
    header.put("tokenizer.ggml.model", "gpt2");
    header.put("tokenizer.ggml.pre", tokenizer.pre);
    header.put("tokenizer.ggml.tokens", NewValue::Strings(tokenizer.tokens));
    header.put("tokenizer.ggml.token_type", NewValue::I32s(tokenizer.types));
    header.put("tokenizer.ggml.merges", NewValue::Strings(tokenizer.merges));
    put_special(header, source, &tokenizer.ids)?;
    if let Some(template) = chat_template(source)? {
        header.put("tokenizer.chat_template", template.as_str());
    }
    Ok(())
}

/// A byte-level BPE tokenizer.
struct Tokenizer {
    pre: &'static str,
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` for a model with `rows` token ids.
    fn read(path: &Path, json: &Value, rows: usize) -> Result<Self, Error> {
        let top = Json::new(path, json)?;
        let missing = || Error::missing(path, "`model`");
        let model = top.find_object("model")?.ok_or_else(missing)?;
        if let Some(other) = model.find_str("type")?.filter(|&kind| kind != "BPE") {
            return Err(Error::config(path, "model.type", "BPE", other));
        }
        let mut this = Self {
            pre: pre(path, top)?,
            tokens: (0..rows).map(|id| format!("[PAD{id}]")).collect(),
            types: vec![UNUSED; rows],
            merges: Vec::new(),
            ids: HashMap::new(),
        };
        let vocab = model.find_object("vocab")?.ok_or_else(missing)?;
        for (token, id) in vocab.entries() {
            this.add(path, token, id, NORMAL)?;
        }
        for added in top.find_list("added_tokens")?.into_iter().flatten() {
            let special = added["special"].as_bool().unwrap_or(false);
            let kind = if special { CONTROL } else { USER_DEFINED };
            this.add(path, added["content"].as_str().unwrap_or(""), &added["id"], kind)?;
        }
        for merge in model.find_list("merges")?.into_iter().flatten() {
            this.merges.push(this.merge(path, merge)?);
        }
        Ok(this)
    }

    fn add(&mut self, path: &Path, token: &str, id: &Value, kind: i32) -> Result<(), Error> {
        let rows = self.tokens.len();
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < rows);
        let (Some(place), false) = (place, token.is_empty()) else {
            let item = format!("token `{}`", token.escape_debug());
            let reason = format!("the id {id} is not below {rows}, the rows of the embedding");
            return Err(Error::bad(path, item, reason));
        };
        let taken = self.types[place] != UNUSED && self.tokens[place] != token;
        let before = self.ids.insert(token.to_owned(), place as u32);
        if taken || before.is_some_and(|before| before as usize != place) {
            let item = format!("token `{}`", token.escape_debug());
            return Err(Error::bad(path, item, format!("it or its id {place} is there twice")));
        }
        token.clone_into(&mut self.tokens[place]);
        self.types[place] = kind;
        Ok(())
    }

    /// A merge as the two tokens with a space between them. Files write it so or as a pair.
    fn merge(&self, path: &Path, merge: &Value) -> Result<String, Error> {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [left, right] => left.as_str().zip(right.as_str()),
                _ => None,
            },
            _ => None,
        };
        let known = |token: &str| self.ids.contains_key(token) && !token.contains(' ');
        match pair {
            Some((left, right)) if known(left) && known(right) => Ok(format!("{left} {right}")),
            _ => Err(Error::bad(path, format!("merge {merge}"), "is not a pair of known tokens")),
        }
    }
}

/// The name of the way in which the tokenizer splits text into words.
fn pre(path: &Path, top: Json<'_>) -> Result<&'static str, Error> {
    let pattern = top.value("pre_tokenizer").and_then(|value| find_pattern(value));
    let known = SPLITS.iter().find(|(split, _)| Some(*split) == pattern);
    known.map(|&(_, name)| name).ok_or_else(|| {
        let found = pattern.unwrap_or("no pattern");
        Error::config(path, "pre_tokenizer", "the pattern of Qwen2 or of Qwen3.5", found)
    })
}

/// The first pattern in a pre-tokenizer, which may be a sequence of several.
fn find_pattern(value: &Value) -> Option<&str> {
    if let Some(list) = value["pretokenizers"].as_array() {
        return list.iter().find_map(find_pattern);
    }
    value["pattern"]["Regex"].as_str()
}

/// Puts the ids of the tokens that begin, end and fill up a text.
fn put_special(
    header: &mut Header,
    source: &Path,
    ids: &HashMap<String, u32>,
) -> Result<(), Error> {
    let path = source.join("tokenizer_config.json");
    let settings = if path.exists() { read_json(&path)? } else { Value::Null };
    // A token is its text or an object with it.
    let named = |key: &str| {
        let token = &settings[key];
        token.as_str().or(token["content"].as_str()).and_then(|text| ids.get(text)).copied()
    };
    let mut ends: Vec<u32> = named("eos_token").into_iter().collect();
    for file in ["generation_config.json", "config.json"] {
        let path = source.join(file);
        let json = if path.exists() { read_json(&path)? } else { Value::Null };
        let ids = match &json["eos_token_id"] {
            Value::Array(list) => list.clone(),
            other => vec![other.clone()],
        };
        ends.extend(ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
    }
    let mut distinct = Vec::new();
    for id in ends {
        if !distinct.contains(&id) {
            distinct.push(id);
        }
    }
    // The format has three keys for tokens that end an answer. Readers treat them alike.
    let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
    for (key, &id) in keys.iter().zip(&distinct) {
        header.put(key, NewValue::U32(id));
    }
    if let Some(id) = named("bos_token") {
        header.put("tokenizer.ggml.bos_token_id", NewValue::U32(id));
    }
    if let Some(id) = named("pad_token") {
        header.put("tokenizer.ggml.padding_token_id", NewValue::U32(id));
    }
    let add_bos = settings["add_bos_token"].as_bool().unwrap_or(false);
    header.put("tokenizer.ggml.add_bos_token", NewValue::Bool(add_bos));
    Ok(())
}

/// The chat template, from the first place that has one.
fn chat_template(source: &Path) -> Result<Option<String>, Error> {
    let path = source.join("chat_template.jinja");
    if path.exists() {
        return read_text(&path).map(Some);
    }
    for file in ["chat_template.json", "tokenizer_config.json"] {
        let path = source.join(file);
        if !path.exists() {
            continue;
        }
        if let Some(template) = read_json(&path)?["chat_template"].as_str() {
            return Ok(Some(template.to_owned()));
        }
    }
    Ok(None)
}
