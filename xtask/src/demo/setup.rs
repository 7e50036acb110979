//! The model and the temporary configuration of the demo.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::ports::Ports;

/// What is served, and under which id.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) source: PathBuf,
}

/// The model at `given`, or the sample model of the repository at `root`.
pub(crate) fn model(root: &Path, given: Option<&Path>) -> Result<Model> {
    let path = given.map_or_else(|| root.join("models/sprout"), Path::to_path_buf);
    let source = path.canonicalize().with_context(|| {
        format!("there is no model at {}; name one with --model", path.display())
    })?;
    let file = source.is_file();
    if file && source.extension().is_none_or(|ending| ending != "gguf") {
        bail!("{} is no GGUF file; --model takes a .gguf file or a directory", source.display());
    }
    if !file && !source.join("config.json").is_file() {
        bail!("{} holds no config.json, so it is not a model", source.display());
    }
    let name = if file { source.file_stem() } else { source.file_name() };
    let id = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Model { id, source })
}

/// A directory with both configurations and, later, the logs; gone when it is dropped.
pub(crate) struct Setup {
    directory: TempDir,
    pub(crate) neuron_toml: PathBuf,
    pub(crate) cortex_toml: PathBuf,
}

impl Setup {
    pub(crate) fn write(model: &Model, ports: &Ports) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("cargo-demo-")
            .tempdir()
            .context("no temporary place")?;
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            let written = std::fs::write(&path, text);
            written.with_context(|| format!("{} cannot be written", path.display()))?;
            anyhow::Ok(path)
        };
        let neuron_toml = write("neuron.toml", neuron_toml(model, ports)?)?;
        let cortex_toml = write("cortex.toml", cortex_toml(ports))?;
        Ok(Self { directory, neuron_toml, cortex_toml })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn neuron_toml(model: &Model, ports: &Ports) -> Result<String> {
    let source = model.source.to_str().with_context(|| {
        format!("{} is not UTF-8, which a configuration file must be", model.source.display())
    })?;
    Ok(format!(
        "listen = \"127.0.0.1:{}\"\n\n[[default_models]]\nmodel_id = {}\nsource = {}\n",
        ports.neuron,
        quoted(&model.id),
        quoted(source)
    ))
}

fn cortex_toml(ports: &Ports) -> String {
    format!(
        "[gateway]\nlisten = \"127.0.0.1:{}\"\nmetrics_listen = \"127.0.0.1:0\"\n\
         poll_interval_ms = 200\n\n[[neurons]]\nname = \"demo\"\nendpoint = \"{}\"\n",
        ports.cortex,
        ports.neuron_url()
    )
}

/// A TOML basic string; JSON's escapes are all legal there.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_model_is_refused_with_its_path() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let refused = |path: &Path| format!("{:#}", model(path, Some(path)).expect_err("no model"));
        assert!(refused(&path("absent")).contains("absent"));
        assert!(refused(directory.path()).contains("config.json"));
        std::fs::write(path("a.txt"), "").expect("a file");
        assert!(refused(&path("a.txt")).contains(".gguf"));
    }

    #[test]
    fn a_model_is_called_after_its_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("tiny.Q8_0.gguf");
        std::fs::write(&file, "").expect("a file");
        assert_eq!(model(Path::new("/"), Some(&file)).expect("a model").id, "tiny.Q8_0");
    }

    #[test]
    fn odd_paths_survive_the_configuration() {
        let model = Model { id: "a\"b".to_owned(), source: PathBuf::from("/x \\ \"y\"/é") };
        let ports = Ports { cortex: 1, neuron: 2 };
        let text = neuron_toml(&model, &ports).expect("UTF-8");
        assert!(text.contains(r#"model_id = "a\"b""#), "{text}");
        assert!(text.contains(r#"source = "/x \\ \"y\"/é""#), "{text}");
    }
}
