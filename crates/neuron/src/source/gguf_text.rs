//! The text side of a model out of its GGUF file (requirement 37).

use std::path::Path;

use dialog::Defaults;
use model::gguf::{Array, Gguf, Metadata, Value};
use text::{
    EmbeddingForm, EmbeddingPooling, SpecialTokens, Template, TextError, TextModel, Tokenizer,
    Vocabulary,
};

use crate::child::link::LoadFailure;
use crate::child::native;
use crate::source::assets::unusable;

/// Metadata keys that name a token which ends an answer.
const END_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Control tokens that end an answer of this family, whichever of them the file names as its end:
/// a model's own `generation_config` lists both, and GGUF has room for one (requirement 107).
const END_TOKENS: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];

pub(crate) fn read(file: &Path) -> Result<TextModel, LoadFailure> {
    let bad = |error: model::Error| native::model_failure(file, &error);
    let unusable_here = |error: TextError| unusable(Some(file), &error);
    let gguf = Gguf::open(file).map_err(bad)?;
    let metadata = gguf.metadata();
    let raw = Raw::of(metadata).map_err(bad)?;
    if raw.kind != "gpt2" {
        let message = format!(
            "tokenizer.ggml.model is `{}`, only byte-level BPE (`gpt2`) is read: put a \
             tokenizer.json beside the file and load the directory",
            raw.kind
        );
        return Err(unusable_here(TextError::BadTokenizer(message)));
    }
    check(metadata, &raw).map_err(bad)?;
    let vocabulary = Vocabulary {
        tokens: owned(&raw.tokens),
        merges: owned(&raw.merges),
        token_types: raw.types,
        pre: raw.pre.to_owned(),
    };
    let spelling = |id: Option<u32>| vocabulary.tokens.get(id? as usize).cloned();
    let special = SpecialTokens {
        bos: spelling(raw.bos),
        eos: spelling(raw.ends.first().copied()),
        pad: spelling(raw.pad),
        unk: spelling(raw.unknown),
    };
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).map_err(unusable_here)?;
    let template = raw.template.map(|source| Template::new(source, special)).transpose();
    let embedding = raw.embedding;
    let mut ends = raw.ends;
    ends.extend(
        END_TOKENS
            .iter()
            .filter_map(|token| tokenizer.id(token).filter(|id| tokenizer.is_special(*id))),
    );
    let template = template.map_err(unusable_here)?;
    Ok(TextModel { embedding, ..TextModel::new(tokenizer, template, ends, raw.defaults) })
}

/// Refuses lists that contradict each other, which a tokenizer would not notice (bad file 109).
fn check(metadata: Metadata<'_>, raw: &Raw<'_>) -> Result<(), model::Error> {
    let wrong = |key: &str, expected: String, found: String| {
        let (file, key) = (metadata.file().to_path_buf(), key.to_owned());
        Err(model::Error::BadConfig { file, key, expected, found })
    };
    let tokens = raw.tokens.len();
    for key in ["tokenizer.ggml.token_type", "tokenizer.ggml.scores"] {
        let found = metadata.find::<Array<'_>>(key)?.map_or(tokens, |list| list.len());
        if found != tokens {
            return wrong(key, format!("{tokens} entries, one a token"), found.to_string());
        }
    }
    let special = ["bos_token_id", "padding_token_id", "unknown_token_id"];
    let special = special.map(|name| format!("tokenizer.ggml.{name}"));
    for key in END_KEYS.into_iter().chain(special.iter().map(String::as_str)) {
        let id = metadata.find::<u32>(key)?.filter(|id| *id as usize >= tokens);
        if let Some(id) = id {
            return wrong(key, format!("the id of one of {tokens} tokens"), id.to_string());
        }
    }
    Ok(())
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The values as they stand in the file.
struct Raw<'a> {
    kind: &'a str,
    pre: &'a str,
    tokens: Vec<&'a str>,
    merges: Vec<&'a str>,
    types: Vec<i32>,
    template: Option<&'a str>,
    bos: Option<u32>,
    pad: Option<u32>,
    unknown: Option<u32>,
    ends: Vec<u32>,
    defaults: Defaults,
    embedding: Result<EmbeddingForm, String>,
}

impl<'a> Raw<'a> {
    fn of(metadata: Metadata<'a>) -> Result<Self, model::Error> {
        let types: Option<Array<'a>> = metadata.find("tokenizer.ggml.token_type")?;
        let mut ends = Vec::new();
        for key in END_KEYS {
            ends.extend(metadata.find::<u32>(key)?);
        }
        Ok(Self {
            kind: metadata.get("tokenizer.ggml.model")?,
            pre: metadata.find("tokenizer.ggml.pre")?.unwrap_or_default(),
            tokens: metadata.get("tokenizer.ggml.tokens")?,
            merges: metadata.get("tokenizer.ggml.merges")?,
            types: types.iter().flat_map(Array::iter).map(token_type).collect(),
            template: metadata.find("tokenizer.chat_template")?,
            bos: metadata.find("tokenizer.ggml.bos_token_id")?,
            pad: metadata.find("tokenizer.ggml.padding_token_id")?,
            unknown: metadata.find("tokenizer.ggml.unknown_token_id")?,
            embedding: embedding(metadata)?,
            ends,
            defaults: Defaults {
                temperature: metadata.find("general.sampling.temp")?,
                top_p: metadata.find("general.sampling.top_p")?,
                top_k: metadata.find("general.sampling.top_k")?,
                min_p: metadata.find("general.sampling.min_p")?,
                repetition_penalty: metadata.find("general.sampling.penalty_repeat")?,
            },
        })
    }
}

/// How the file says that embeddings are made: `{architecture}.pooling_type`.
fn embedding(metadata: Metadata<'_>) -> Result<Result<EmbeddingForm, String>, model::Error> {
    let architecture: &str = metadata.get("general.architecture")?;
    let pooling = match metadata.find::<u32>(&format!("{architecture}.pooling_type"))? {
        Some(1) => EmbeddingPooling::Mean,
        Some(3) => EmbeddingPooling::Last,
        None | Some(0) => return Ok(Err("its file names no pooling of hidden states".to_owned())),
        Some(other) => return Ok(Err(format!("pooling_type {other} is not served"))),
    };
    let token = |add: &str, id: &str| -> Result<Vec<u32>, model::Error> {
        let is_added = metadata.find::<bool>(&format!("tokenizer.ggml.{add}"))? == Some(true);
        let id = metadata.find::<u32>(&format!("tokenizer.ggml.{id}"))?;
        Ok(id.filter(|_| is_added).into_iter().collect())
    };
    Ok(Ok(EmbeddingForm {
        pooling,
        // Such a file has no word for it, and what is made of it elsewhere has length 1.
        is_normalised: true,
        before: token("add_bos_token", "bos_token_id")?,
        after: token("add_eos_token", "eos_token_id")?,
        dimensions: Vec::new(),
    }))
}

/// A value that is no token type is passed on as one that does not exist.
fn token_type(value: Value<'_>) -> i32 {
    match value {
        Value::Signed(kind) => i32::try_from(kind).unwrap_or(-1),
        Value::Unsigned(kind) => i32::try_from(kind).unwrap_or(-1),
        _ => -1,
    }
}

#[cfg(test)]
mod tests;
