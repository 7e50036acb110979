//! One model on disk: its configuration and its tensors by what they are.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::quantised::Quantised;
use super::{Mapped, Role, TensorName, TensorView, sniff};
use crate::Error;
use crate::config::{
    DeltaConfig, ExpertLayout, Json, LayerKind, ModelConfig, ValueHeadOrder, from_gguf, from_hf,
};
use crate::gguf::{Gguf, one_of_each};
use crate::safetensors::{INDEX_FILE, SafeTensors};

/// Where the text model may be in a checkpoint, the more special places first.
/// The last one is that of models without an output head, which are saved without what holds both.
const PREFIXES: [&str; 4] = ["model.language_model.", "language_model.model.", "model.", ""];
/// Suffixes of files that hold Python pickles.
const PICKLES: [&str; 5] = ["bin", "pt", "pth", "pkl", "ckpt"];

/// An open model: everything its configuration calls for is there, in the right shape.
pub struct Source {
    pub(super) config: ModelConfig,
    pub(super) path: PathBuf,
    pub(super) files: Files,
    pub(super) warnings: Vec<String>,
}

pub(super) enum Files {
    Gguf(Box<Gguf>),
    Quantised(Box<Quantised>),
    SafeTensors { files: SafeTensors, prefix: &'static str },
}

impl Source {
    /// Opens a GGUF file or any part of a split one, or a directory with `config.json` and
    /// safetensors files or with exactly one GGUF model.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the files, the configuration or a tensor, before any of it is used.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let kind = fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if kind.is_dir() {
            return Self::open_directory(path);
        }
        if path.extension() == Some(OsStr::new("safetensors")) {
            let reason = "is one file of a model; give the directory that has its `config.json`";
            return Err(Error::refused(path, reason));
        }
        Self::of_gguf(Gguf::open(path)?)
    }

    /// Takes an open GGUF file for a model.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub fn of_gguf(gguf: Gguf) -> Result<Self, Error> {
        let (config, path) = (from_gguf(&gguf)?, gguf.path().to_path_buf());
        let warnings = gguf.warnings().to_vec();
        let files = Files::Gguf(Box::new(gguf));
        Self { config, path, files, warnings }.checked()
    }

    fn open_directory(directory: &Path) -> Result<Self, Error> {
        let found = Listing::of(directory)?;
        if found.safetensors.is_empty() && !directory.join(INDEX_FILE).exists() {
            return match (found.ggufs.as_slice(), found.pickle) {
                ([only], _) => Self::of_gguf(Gguf::open(only)?),
                ([], Some(pickle)) => Err(Error::refused(
                    directory,
                    format!(
                        "has pickle weights only (`{pickle}`), which are refused; \
                         convert to safetensors"
                    ),
                )),
                ([], None) => Err(Error::NoWeights { file: directory.to_path_buf() }),
                (several, _) => Err(Error::refused(
                    directory,
                    format!("has {} GGUF models; name the one to open", several.len()),
                )),
            };
        }
        let config_path = directory.join("config.json");
        let json = read_json(&config_path)?;
        let config = from_hf(&config_path, &json)?;
        let files = open_safetensors(directory, &found.safetensors)?;
        let has = |prefix: &&str| {
            let name = TensorName::Embedding.hf(prefix);
            files.names().any(|found| found == name)
        };
        let Some(prefix) = PREFIXES.into_iter().find(has) else {
            let name = TensorName::Embedding.hf("model.");
            return Err(Error::missing(directory, format!("tensor `{name}`")));
        };
        let mut warnings = Vec::new();
        let fields = Json::new(&config_path, &json)?;
        if fields.value("auto_map").is_some() {
            warnings.push("`auto_map` in config.json is ignored: remote code is never run".into());
        }
        if fields.value("vision_config").is_some() {
            warnings.push("the vision part is not loaded: text only".into());
        }
        let files = Files::SafeTensors { files, prefix };
        Self { config, path: directory.to_path_buf(), files, warnings }.checked()
    }

    /// Looks every tensor up once, so that a load cannot fail half way.
    fn checked(mut self) -> Result<Self, Error> {
        self.find_layout()?;
        if self.config.mtp_layers > 0
            && let Some(name) = self.first_missing(TensorName::mtp(&self.config))?
        {
            // Checkpoints are often published without it. It speeds up and changes no result.
            self.warnings.push(format!(
                "the multi-token prediction layer is left out: tensor `{name}` is missing"
            ));
            self.config.mtp_layers = 0;
        }
        for name in TensorName::all(&self.config) {
            self.tensor(name)?;
        }
        Ok(self)
    }

    /// Sees from the first layer which tensors hold what.
    fn find_layout(&mut self) -> Result<(), Error> {
        let linear = LayerKind::LinearAttention;
        let linear = self.config.layers.iter().position(|&kind| kind == linear);
        // Tensors that go key head by key head make sense for grouped value heads only.
        let grouped = |delta: &DeltaConfig| delta.value_head_order == ValueHeadOrder::Grouped;
        let linear = linear.filter(|_| self.config.delta.as_ref().is_some_and(grouped));
        if let Some(layer) = linear {
            let has = |role| self.has(TensorName::Layer(layer, role));
            let (fused_qkvz, fused_ba) = (has(Role::DeltaQkvz)?, has(Role::DeltaBa)?);
            self.config.layout.fused_qkvz = fused_qkvz;
            self.config.layout.fused_ba = fused_ba;
        }
        if self.config.moe.is_some() {
            self.config.layout.experts = if self.has(TensorName::Layer(0, Role::ExpertsGateUp))? {
                ExpertLayout::Fused
            } else if self.gguf().is_some() {
                ExpertLayout::Stacked
            } else {
                ExpertLayout::Single
            };
        }
        Ok(())
    }

    /// The name in the files of the first of `names` that they do not have.
    fn first_missing(
        &self,
        names: impl Iterator<Item = TensorName>,
    ) -> Result<Option<String>, Error> {
        for name in names {
            if !self.has(name)? {
                return Ok(Some(self.file_name(name)));
            }
        }
        Ok(None)
    }

    fn has(&self, name: TensorName) -> Result<bool, Error> {
        Ok(self.raw(&self.file_name(name))?.is_some())
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file or directory that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GGUF file, if it is one: it holds the tokenizer and the chat template too.
    pub fn gguf(&self) -> Option<&Gguf> {
        match &self.files {
            Files::Gguf(gguf) => Some(gguf),
            Files::Quantised(quantised) => quantised.source().gguf(),
            Files::SafeTensors { .. } => None,
        }
    }

    /// What is odd without being wrong, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The tensor of that name in the files, in the shape that the configuration gives it.
    /// `matrix` also finds what a file holds as a part of another tensor, and quantises it if this
    /// source does.
    ///
    /// # Errors
    ///
    /// `Missing` if the file does not have it (an open source has all of `TensorName::all`);
    /// `BadFile` with the expected and the found shape if it has another one.
    pub fn tensor(&self, name: TensorName) -> Result<TensorView<'_>, Error> {
        let in_file = self.file_name(name);
        let missing = || Error::missing(&self.path, format!("tensor `{in_file}`"));
        let mut view = self.raw(&in_file)?.ok_or_else(missing)?;
        let expected = name.shape(&self.config);
        // A convolution's filters have a middle size of 1 in safetensors files.
        let squeezed =
            |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|&n| n != 1).collect() };
        if view.shape != expected && squeezed(&view.shape) != squeezed(&expected) {
            let reason = format!("expected the shape {expected:?}, found {:?}", view.shape);
            return Err(Error::bad(&self.path, format!("tensor `{in_file}`"), reason));
        }
        view.shape = expected;
        // Rows that are shaped otherwise in the file may be shorter than its blocks.
        if !view.row_elements().is_multiple_of(view.ty.block_elements()) {
            let (row, ty, shape) = (view.row_elements(), view.ty, &view.shape);
            let reason = format!("the shape {shape:?} has rows of {row}, which cut blocks of {ty}");
            return Err(Error::bad(&self.path, format!("tensor `{in_file}`"), reason));
        }
        Ok(view)
    }

    /// What this source's files call the tensor.
    pub fn file_name(&self, name: TensorName) -> String {
        match &self.files {
            Files::Gguf(_) => name.gguf(&self.config),
            Files::Quantised(quantised) => quantised.source().file_name(name),
            Files::SafeTensors { prefix, .. } => name.hf(prefix),
        }
    }

    fn raw(&self, name: &str) -> Result<Option<TensorView<'_>>, Error> {
        match &self.files {
            Files::Gguf(gguf) => Ok(gguf.tensor(name)),
            Files::Quantised(quantised) => quantised.source().raw(name),
            Files::SafeTensors { files, .. } => files.tensor(name),
        }
    }
}

/// The files of a directory that concern us, in the order of their names; of a split model one.
#[derive(Default)]
struct Listing {
    safetensors: Vec<PathBuf>,
    ggufs: Vec<PathBuf>,
    pickle: Option<String>,
}

impl Listing {
    fn of(directory: &Path) -> Result<Self, Error> {
        let mut found = Self::default();
        for entry in fs::read_dir(directory).map_err(|e| Error::io(directory, e))? {
            let path = entry.map_err(|e| Error::io(directory, e))?.path();
            match path.extension().and_then(OsStr::to_str) {
                Some("safetensors") => found.safetensors.push(path),
                Some("gguf") => found.ggufs.push(path),
                Some(end) if PICKLES.contains(&end) => {
                    found.pickle = path.file_name().map(|name| name.to_string_lossy().into());
                }
                _ => {}
            }
        }
        found.safetensors.sort();
        found.ggufs = one_of_each(found.ggufs);
        Ok(found)
    }
}

fn open_safetensors(directory: &Path, listed: &[PathBuf]) -> Result<SafeTensors, Error> {
    let index = directory.join(INDEX_FILE);
    if index.exists() {
        return SafeTensors::open_index(&index);
    }
    match listed {
        [only] => SafeTensors::open(only),
        several => match several.iter().find(|path| path.ends_with("model.safetensors")) {
            Some(model) => SafeTensors::open(model),
            None => Err(Error::missing(directory, format!("`{INDEX_FILE}` for its shards"))),
        },
    }
}

/// Reads and parses a JSON file.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value, Error> {
    let bytes = read_small(path)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::bad(path, "JSON", e.to_string()))
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = read_small(path)?;
    let text = str::from_utf8(&bytes).map_err(|e| Error::bad(path, "text", e.to_string()))?;
    Ok(text.to_owned())
}

/// Maps a file that stands beside the weights, unless it is a stand-in for one.
fn read_small(path: &Path) -> Result<Mapped, Error> {
    let bytes = Mapped::open(path)?;
    match sniff::recognise(&bytes) {
        Some(what) => Err(Error::refused(path, format!("is {what}"))),
        None => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
