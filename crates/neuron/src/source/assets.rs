//! The text side of a model, from the files beside its weights or out of its GGUF.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::{fs, str};

use engine::Vocabulary;
use text::{HuggingFaceFiles, TextError, TextModel};

use crate::child::link::{LoadCode, LoadDetails, LoadFailure};
use crate::source;
use crate::source::gguf_text;

/// No text file of a model is larger than this; the largest tokenizers have 30 MiB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// What the daemon itself needs of a model; the engine child reads the weights.
#[derive(Clone, Debug)]
pub(crate) struct Assets {
    /// Tokenizer, template, stop tokens and defaults.
    pub(crate) text: Arc<TextModel>,
}

impl Assets {
    /// Reads them: of a directory, the files beside the weights, or without those its one GGUF
    /// model; of a GGUF file, what it brings itself (requirement 37).
    pub(crate) fn read(source: &Path) -> Result<Self, LoadFailure> {
        let text = if !source.is_dir() {
            gguf_text::read(source)?
        } else if source.join("tokenizer.json").exists() {
            from_directory(source)?
        } else if let [only] = source::gguf_models(source).as_slice() {
            gguf_text::read(only)?
        } else {
            return Err(bad("tokenizer.json", "file", "is missing beside the weights"));
        };
        Ok(Self { text: Arc::new(text) })
    }

    /// Longer prompts are refused before they are tokenised to their end.
    pub(crate) fn limit_prompts(&mut self, context: u32) {
        // Shared only after a restart, and then the limit is set already.
        if let Some(text) = Arc::get_mut(&mut self.text) {
            text.max_prompt_tokens = Some(context);
        }
    }

    /// What the tokens spell, for the engine's grammars.
    pub(crate) fn vocabulary(&self) -> Vocabulary {
        let tokenizer = &self.text.tokenizer;
        let bytes = (0..tokenizer.vocab_size()).map(|id| tokenizer.token_bytes(id).to_vec());
        Vocabulary { bytes: bytes.collect(), specials: tokenizer.added().collect() }
    }

    /// What callers may rely on.
    pub(crate) fn capabilities(&self) -> Vec<String> {
        let knows = |token| self.text.tokenizer.id(token).is_some();
        let chat = self.text.template.is_some();
        let list = [
            ("chat", chat),
            ("tools", chat && knows("<tool_call>")),
            ("reasoning", chat && knows(&self.text.reasoning.open)),
            ("embeddings", self.text.embedding.is_ok()),
        ];
        list.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
    }
}

fn from_directory(dir: &Path) -> Result<TextModel, LoadFailure> {
    let read = |name| read_file(dir, name);
    // An empty file is no tokenizer, and the reader says so.
    let tokenizer = read("tokenizer.json")?.unwrap_or_default();
    let (tokenizer_config, generation_config) =
        (read("tokenizer_config.json")?, read("generation_config.json")?);
    let (config, template) = (read("config.json")?, read("chat_template.jinja")?);
    let template_json = read("chat_template.json")?;
    let (pooling, modules) = (read("1_Pooling/config.json")?, read("modules.json")?);
    let template = template.as_deref().map(str::from_utf8).transpose();
    let template = template.map_err(|_| bad("chat_template.jinja", "file", "is not UTF-8"))?;
    let files = HuggingFaceFiles {
        tokenizer: &tokenizer,
        tokenizer_config: tokenizer_config.as_deref(),
        generation_config: generation_config.as_deref(),
        config: config.as_deref(),
        chat_template: template,
        chat_template_json: template_json.as_deref(),
        pooling: pooling.as_deref(),
        modules: modules.as_deref(),
    };
    TextModel::from_hugging_face(&files).map_err(|error| unusable(None, &error))
}

/// Why a model's words cannot be used. They are in `file`, or else in files of the usual names.
pub(crate) fn unusable(file: Option<&Path>, error: &TextError) -> LoadFailure {
    let within = file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let or = |usual: &str| within.clone().unwrap_or_else(|| usual.to_owned());
    match error {
        TextError::BadTokenizer(reason) => bad(&or("tokenizer.json"), "tokenizer", reason),
        TextError::BadTemplate(reason) => bad(&or("chat_template"), "chat template", reason),
        TextError::BadModelFile { file, reason } => bad(file, "file", reason),
        other => LoadFailure::new(LoadCode::BadModelFile, other.to_string()),
    }
}

fn bad(file: &str, item: &str, reason: impl Into<String>) -> LoadFailure {
    let (file, item, reason) = (file.to_owned(), item.to_owned(), reason.into());
    let message = match item.as_str() {
        "file" => format!("{file}: {reason}"),
        item => format!("{file}: {item}: {reason}"),
    };
    let details = LoadDetails::File { file, item, reason };
    LoadFailure::new(LoadCode::BadModelFile, message).with(details)
}

fn read_file(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, LoadFailure> {
    let bad = |reason: String| bad(name, "file", format!("cannot be read: {reason}"));
    let path = dir.join(name);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(error.to_string())),
    };
    if !metadata.is_file() {
        return Err(bad("it is not a plain file".into()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(bad(format!("it has {} bytes, the limit is {MAX_FILE_BYTES}", metadata.len())));
    }
    fs::read(&path).map(Some).map_err(|error| bad(error.to_string()))
}
