//! What a model brings besides its weights: tokenizer, template, stop tokens, defaults.

use dialog::Defaults;
use serde_json::Value;

use crate::embedding::EmbeddingForm;
use crate::{CallForm, ReasoningMarkers, SpecialTokens, Template, TextError, Tokenizer};

/// The text side of a model.
#[derive(Debug)]
pub struct TextModel {
    /// Text <-> ids.
    pub tokenizer: Tokenizer,
    /// Conversation -> text; base models have none.
    pub template: Option<Template>,
    /// Tokens that end an answer, as a set.
    pub stop_tokens: Vec<u32>,
    /// Sampling defaults of the model's `generation_config`.
    pub defaults: Defaults,
    /// How the model marks its reasoning.
    pub reasoning: ReasoningMarkers,
    /// How the model writes its calls, as its template teaches it.
    pub call_form: CallForm,
    /// Longer prompts are refused without being tokenised to their end; the model's context.
    pub max_prompt_tokens: Option<u32>,
    /// How the model makes embeddings, or why it makes none.
    pub embedding: Result<EmbeddingForm, String>,
}

/// The contents of a Hugging Face model directory's text files.
#[derive(Clone, Copy, Debug, Default)]
pub struct HuggingFaceFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`: special tokens and, in older models, the template.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `generation_config.json`: end-of-sequence tokens and sampling defaults.
    pub generation_config: Option<&'a [u8]>,
    /// `config.json`: end-of-sequence tokens where there is no `generation_config.json`.
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja`.
    pub chat_template: Option<&'a str>,
    /// `chat_template.json`.
    pub chat_template_json: Option<&'a [u8]>,
    /// `1_Pooling/config.json`: models that make embeddings have it.
    pub pooling: Option<&'a [u8]>,
    /// `modules.json`, beside it.
    pub modules: Option<&'a [u8]>,
}

impl TextModel {
    /// A model with `<think>` as its reasoning marker.
    pub fn new(
        tokenizer: Tokenizer,
        template: Option<Template>,
        mut stop_tokens: Vec<u32>,
        defaults: Defaults,
    ) -> Self {
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        let reasoning = ReasoningMarkers::default();
        let call_form = template.as_ref().map(Template::call_form).unwrap_or_default();
        Self {
            tokenizer,
            template,
            stop_tokens,
            defaults,
            reasoning,
            call_form,
            max_prompt_tokens: None,
            embedding: Err("its files name no pooling of hidden states".to_owned()),
        }
    }

    /// Reads the files of a Hugging Face model directory.
    ///
    /// # Errors
    ///
    /// The file that cannot be read, or why the tokenizer or the template cannot be used.
    pub fn from_hugging_face(files: &HuggingFaceFiles<'_>) -> Result<Self, TextError> {
        let tokenizer = Tokenizer::from_json(files.tokenizer)?;
        let tokenizer_config = object("tokenizer_config.json", files.tokenizer_config)?;
        let generation_config = object("generation_config.json", files.generation_config)?;
        let config = object("config.json", files.config)?;
        let special_tokens = SpecialTokens {
            bos: spelling(&tokenizer_config["bos_token"]),
            eos: spelling(&tokenizer_config["eos_token"]),
            pad: spelling(&tokenizer_config["pad_token"]),
            unk: spelling(&tokenizer_config["unk_token"]),
        };
        let eos = special_tokens.eos.as_deref().and_then(|token| tokenizer.id(token));
        let template = match template_source(files, &tokenizer_config)? {
            Some(source) => Some(Template::new(&source, special_tokens)?),
            None => None,
        };
        // Requirement 107: a set, from every place that names one.
        let mut stop_tokens = token_ids(&generation_config["eos_token_id"]);
        if stop_tokens.is_empty() {
            stop_tokens = token_ids(&config["eos_token_id"]);
        }
        stop_tokens.extend(eos);
        let embedding =
            EmbeddingForm::from_files(files.pooling, files.modules, files.tokenizer, &config);
        let model = Self::new(tokenizer, template, stop_tokens, defaults(&generation_config));
        Ok(Self { embedding, ..model })
    }
}

fn object(file: &'static str, bytes: Option<&[u8]>) -> Result<Value, TextError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    serde_json::from_slice(bytes)
        .map_err(|error| TextError::BadModelFile { file, reason: error.to_string() })
}

/// A special token stands there as a string, or as an object with its `content`.
fn spelling(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

/// Requirement 34: `chat_template.jinja`, then `chat_template.json`, then `tokenizer_config.json`.
fn template_source(
    files: &HuggingFaceFiles<'_>,
    tokenizer_config: &Value,
) -> Result<Option<String>, TextError> {
    if let Some(source) = files.chat_template {
        return Ok(Some(source.to_owned()));
    }
    let json = object("chat_template.json", files.chat_template_json)?;
    let field = match &json["chat_template"] {
        Value::Null => &tokenizer_config["chat_template"],
        template => template,
    };
    Ok(match field {
        Value::String(source) => Some(source.clone()),
        // Several templates by name.
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            default.and_then(|entry| entry["template"].as_str()).map(str::to_owned)
        }
        _ => None,
    })
}

fn token_ids(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    }
}

/// Requirement 30: the model's own defaults, where it states them.
fn defaults(config: &Value) -> Defaults {
    let float = |name: &str| config[name].as_f64().map(|value| value as f32);
    let greedy = config["do_sample"] == Value::Bool(false);
    Defaults {
        temperature: if greedy { Some(0.0) } else { float("temperature") },
        top_p: float("top_p"),
        top_k: config["top_k"].as_u64().and_then(|keep| u32::try_from(keep).ok()),
        min_p: float("min_p"),
        repetition_penalty: float("repetition_penalty"),
    }
}
