//! How a model makes embeddings, as its files say it.

use serde::Deserialize;
use serde_json::Value;

use crate::{TextError, TextModel};

/// Which of a prompt's hidden states make its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingPooling {
    /// The last token's.
    Last,
    /// The mean of all.
    Mean,
}

/// How a model makes embeddings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingForm {
    /// See [`EmbeddingPooling`].
    pub pooling: EmbeddingPooling,
    /// Whether an embedding is brought to length 1.
    pub is_normalised: bool,
    /// Tokens that stand before a text.
    pub before: Vec<u32>,
    /// Tokens that stand behind a text.
    pub after: Vec<u32>,
    /// The only lengths that an embedding may be cut to; empty where the model names none.
    pub dimensions: Vec<u32>,
}

impl EmbeddingForm {
    /// The form of a sentence-transformers directory: `1_Pooling/config.json`, `modules.json`,
    /// and, as far as they matter here, `tokenizer.json` and `config.json`.
    ///
    /// # Errors
    ///
    /// Why the model makes no embeddings, for whoever asks for one.
    pub(crate) fn from_files(
        pooling: Option<&[u8]>,
        modules: Option<&[u8]>,
        tokenizer: &[u8],
        config: &Value,
    ) -> Result<Self, String> {
        let pooling = pooling.ok_or("its files name no pooling of hidden states")?;
        let pooling = pooling_mode(pooling)?;
        let is_normalised = modules.map_or(Ok(true), is_normalised)?;
        let (before, after) = frame(tokenizer);
        let dimensions = config["matryoshka_dimensions"].as_array().into_iter().flatten();
        let dimensions = dimensions.filter_map(|it| u32::try_from(it.as_u64()?).ok()).collect();
        Ok(Self { pooling, is_normalised, before, after, dimensions })
    }
}

fn pooling_mode(json: &[u8]) -> Result<EmbeddingPooling, String> {
    let broken = |_| "1_Pooling/config.json cannot be read".to_owned();
    let config: Value = serde_json::from_slice(json).map_err(broken)?;
    let fields = config.as_object().into_iter().flatten();
    let modes = fields.filter(|(key, value)| key.starts_with("pooling_mode_") && **value == true);
    match modes.map(|(key, _)| key.as_str()).collect::<Vec<_>>()[..] {
        ["pooling_mode_lasttoken"] => Ok(EmbeddingPooling::Last),
        ["pooling_mode_mean_tokens"] => Ok(EmbeddingPooling::Mean),
        [] => Err("1_Pooling/config.json names no pooling mode".to_owned()),
        ref others => Err(format!("{} is not served", others.join(" with "))),
    }
}

/// A pipeline of other parts than these would compute something else.
fn is_normalised(json: &[u8]) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Module {
        #[serde(rename = "type")]
        kind: String,
    }
    let broken = |_| "modules.json cannot be read".to_owned();
    let modules: Vec<Module> = serde_json::from_slice(json).map_err(broken)?;
    let names = modules.iter().map(|it| it.kind.rsplit('.').next().unwrap_or_default());
    let names: Vec<&str> = names.collect();
    match names.iter().find(|name| !["Transformer", "Pooling", "Normalize"].contains(name)) {
        Some(other) => Err(format!("its module {other} is not served")),
        None => Ok(names.contains(&"Normalize")),
    }
}

/// The tokens that a tokenizer puts around one text.
fn frame(tokenizer: &[u8]) -> (Vec<u32>, Vec<u32>) {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        post_processor: Value,
    }
    let processor =
        serde_json::from_slice(tokenizer).map_or(Value::Null, |it: File| it.post_processor);
    let parts = processor["processors"].as_array();
    let mut all = parts.map_or_else(|| vec![&processor], |parts| parts.iter().collect());
    all.retain(|it| it["type"] == "TemplateProcessing");
    let (mut before, mut after, mut is_behind) = (Vec::new(), Vec::new(), false);
    for template in all {
        for piece in template["single"].as_array().into_iter().flatten() {
            let Some(name) = piece["SpecialToken"]["id"].as_str() else {
                is_behind = true;
                continue;
            };
            let ids = template["special_tokens"][name]["ids"].as_array().into_iter().flatten();
            let ids = ids.filter_map(|id| u32::try_from(id.as_u64()?).ok());
            if is_behind { after.extend(ids) } else { before.extend(ids) }
        }
    }
    (before, after)
}

impl TextModel {
    /// The tokens of a text of which an embedding is wanted.
    ///
    /// # Errors
    ///
    /// [`TextError::NoEmbeddings`], and what is wrong with the text.
    pub fn embedding_tokens(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let form = self.embedding_form()?;
        let tokens = self.tokenizer.encode_rendered(text, None, self.max_prompt_tokens)?;
        Ok([&form.before[..], &tokens, &form.after].concat())
    }

    /// How this model makes embeddings.
    ///
    /// # Errors
    ///
    /// [`TextError::NoEmbeddings`] where it makes none.
    pub fn embedding_form(&self) -> Result<&EmbeddingForm, TextError> {
        self.embedding.as_ref().map_err(|reason| TextError::NoEmbeddings(reason.clone()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(pooling: &Value, modules: Option<&Value>) -> Result<EmbeddingForm, String> {
        let tokenizer = json!({"model": {}, "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel"},
            {"type": "TemplateProcessing",
             "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "<|end|>", "type_id": 0}}],
             "special_tokens": {"<s>": {"id": "<s>", "ids": [7]},
                                "<|end|>": {"id": "<|end|>", "ids": [8, 9]}}},
        ]}});
        let bytes = |value: &Value| value.to_string().into_bytes();
        let config = json!({"matryoshka_dimensions": [2, 4]});
        let modules = modules.map(bytes);
        EmbeddingForm::from_files(
            Some(&bytes(pooling)),
            modules.as_deref(),
            &bytes(&tokenizer),
            &config,
        )
    }

    fn modules(names: &[&str]) -> Value {
        let module = |name| json!({"type": format!("sentence_transformers.models.{name}")});
        names.iter().map(module).collect()
    }

    #[test]
    fn the_files_say_how_embeddings_are_made() {
        let last = json!({"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false});
        let all = modules(&["Transformer", "Pooling", "Normalize"]);
        let expected = EmbeddingForm {
            pooling: EmbeddingPooling::Last,
            is_normalised: true,
            before: vec![7],
            after: vec![8, 9],
            dimensions: vec![2, 4],
        };
        assert_eq!(form(&last, Some(&all)), Ok(expected.clone()));
        assert_eq!(form(&last, None), Ok(expected));
        let mean = json!({"pooling_mode_mean_tokens": true});
        let bare = form(&mean, Some(&modules(&["Transformer", "Pooling"]))).unwrap();
        assert_eq!((bare.pooling, bare.is_normalised), (EmbeddingPooling::Mean, false));
    }

    #[test]
    fn what_is_not_served_is_named() {
        let last = json!({"pooling_mode_lasttoken": true});
        for (pooling, parts, word) in [
            (json!({"pooling_mode_cls_token": true}), None, "pooling_mode_cls_token"),
            (json!({"pooling_mode_cls_token": false}), None, "no pooling mode"),
            (json!(5), None, "no pooling mode"),
            (last, Some(modules(&["Transformer", "Pooling", "Dense"])), "Dense"),
        ] {
            let reason = form(&pooling, parts.as_ref()).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
        let none = EmbeddingForm::from_files(None, None, b"{}", &Value::Null).unwrap_err();
        assert!(none.contains("no pooling"), "{none}");
    }
}
