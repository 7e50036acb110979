//! `bench random-model`: a model of a known shape and random weights, to measure with where the
//! real one is not at hand. Speed does not depend on values; what it says means nothing.

mod shapes;

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use model::Recipe;
use serde_json::{Value, json};

use shapes::Shape;

/// What `bench random-model` can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// Whose sizes it has.
    #[arg(value_enum)]
    shape: Shape,
    /// The GGUF file to write.
    out: PathBuf,
    /// The format of its matrices.
    #[arg(long, default_value = "Q4_K_M")]
    quant: String,
    /// Fewer layers than the shape has.
    #[arg(long)]
    layers: Option<u32>,
    /// Tokens that it takes; the shape's where nothing is said.
    #[arg(long)]
    context: Option<u32>,
    /// A directory whose tokenizer and chat template it gets, so that it can be served. Tokens that
    /// these do not know are spelled `w` and their number.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Another one makes other weights.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Writes it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Some(recipe) = Recipe::from_name(&options.quant) else {
        let known: Vec<&str> = Recipe::all().map(Recipe::name).collect();
        bail!("no format is called `{}`; known: {}", options.quant, known.join(", "));
    };
    let mut config = options.shape.config();
    if let Some(layers) = options.layers {
        config["num_hidden_layers"] = layers.into();
    }
    if let Some(context) = options.context {
        config["max_position_embeddings"] = context.into();
    }
    // What the file is made of; a directory that goes with this function.
    let shape = tempfile::tempdir().context("no temporary directory can be made")?;
    fs::write(shape.path().join("config.json"), config.to_string())?;
    if let Some(tokenizer) = &options.tokenizer {
        take_tokenizer(tokenizer, shape.path(), config["vocab_size"].as_u64().unwrap_or(0))?;
    }
    model::write_random(shape.path(), &options.out, recipe, options.seed)?;
    let bytes = fs::metadata(&options.out)?.len();
    writeln!(stdout(), "{}: {:.1} MB", options.out.display(), bytes as f64 / 1e6)?;
    Ok(())
}

/// Copies a tokenizer, with a spelling for each of so many tokens.
fn take_tokenizer(from: &Path, to: &Path, tokens: u64) -> Result<()> {
    let path = from.join("tokenizer.json");
    let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut tokenizer: Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let mut known: Vec<u64> = added.filter_map(|token| token["id"].as_u64()).collect();
    let Some(vocab) = tokenizer["model"]["vocab"].as_object_mut() else {
        bail!("{} has no `model.vocab`", path.display());
    };
    known.extend(vocab.values().filter_map(Value::as_u64));
    known.sort_unstable();
    for id in (0..tokens).filter(|id| known.binary_search(id).is_err()) {
        vocab.insert(format!("w{id}"), json!(id));
    }
    fs::write(to.join("tokenizer.json"), tokenizer.to_string())?;
    for name in ["tokenizer_config.json", "chat_template.jinja"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn write(out: &Path, shape: &str, more: &[&str]) -> Result<()> {
        let out = out.to_str().expect("a path");
        let line = ["bench", shape, out].into_iter().chain(more.iter().copied());
        run(&Line::parse_from(line).options)
    }

    #[test]
    fn a_layer_of_a_shape_opens_with_its_tokenizer() {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("one.gguf");
        let sprout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/sprout");
        let sprout = sprout.to_str().expect("a path");
        let more = ["--layers", "4", "--context", "512", "--tokenizer", sprout];
        write(&out, "qwen3.5-0.8b", &more).expect("it is written");
        let model = model::Source::open(&out).expect("it opens");
        let config = model.config();
        assert_eq!((config.layers.len(), config.hidden, config.context_length), (4, 1024, 512));
        let metadata = model.gguf().expect("a GGUF file").metadata();
        let tokens: Vec<&str> = metadata.get("tokenizer.ggml.tokens").expect("a list");
        assert_eq!((tokens.len(), tokens[248_319]), (248_320, "w248319"));
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "something is left");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("none.gguf");
        let error = write(&out, "qwen3-0.6b", &["--quant", "Q9"]).expect_err("no such format");
        assert!(error.to_string().contains("Q9") && error.to_string().contains("Q4_K_M"));
        let error = write(&out, "qwen3-0.6b", &["--tokenizer", "/none"]).expect_err("no tokenizer");
        assert!(error.to_string().contains("/none/tokenizer.json"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "something is left");
    }
}
