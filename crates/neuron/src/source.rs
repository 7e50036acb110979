//! Where a model's files are, and which of them a load may use.
//!
//! The rule: the operator's configuration may name any path in `[[default_models]] source`. A load
//! over HTTP may use only what lies under a directory of `model_dirs`, after every symbolic link
//! is followed. A model id is a key to look up and becomes a path only when each of its parts is
//! an ordinary name, and then only under `model_dirs`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::link::{LoadCode, LoadFailure};

/// Characters that an id may have.
const MAX_ID_CHARS: usize = 256;

/// Whether an id is one that a model can have: parts of letters, digits and `._-+:@` between
/// slashes, none of them beginning with a dot.
pub(crate) fn is_model_id(id: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-+:@".contains(c))
    };
    id.len() <= MAX_ID_CHARS && id.split('/').all(part)
}

/// Directories that loads over HTTP may use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed {
    dirs: Vec<PathBuf>,
}

impl Allowed {
    /// The rule for these directories; one that does not exist allows nothing.
    pub(crate) fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// The source that a caller names, if it lies where it may.
    pub(crate) fn check(&self, source: &Path) -> Result<PathBuf, LoadFailure> {
        // One answer for "not there" and "not allowed": it tells nothing of the disk.
        let refused = || {
            let message = "the source does not exist under a directory of `model_dirs`: put the \
                           model there, or name it in neuron.toml";
            LoadFailure::new(LoadCode::RepoNotFound, message)
        };
        let real = fs::canonicalize(source).map_err(|_| refused())?;
        let inside = |dir: &PathBuf| fs::canonicalize(dir).is_ok_and(|dir| real.starts_with(dir));
        if self.dirs.iter().any(inside) { Ok(real) } else { Err(refused()) }
    }

    /// The source of a model by its id alone.
    pub(crate) fn look_up(&self, id: &str) -> Result<PathBuf, LoadFailure> {
        let found = self.dirs.iter().filter(|_| is_model_id(id)).map(|dir| dir.join(id));
        found.into_iter().find_map(|path| self.check(&path).ok()).ok_or_else(|| {
            let message = "no model of this id is configured or lies under `model_dirs`";
            LoadFailure::new(LoadCode::RepoNotFound, message)
        })
    }
}

/// The file or directory to load: where a directory holds several GGUF files, the one in the
/// format that was asked for.
pub(crate) fn choose(source: &Path, quant: Option<&str>) -> Result<PathBuf, LoadFailure> {
    let Ok(metadata) = fs::metadata(source) else {
        let message = "nothing is at the configured source";
        return Err(LoadFailure::new(LoadCode::RepoNotFound, message));
    };
    if metadata.is_file() {
        return Ok(source.to_owned());
    }
    if !metadata.is_dir() {
        let message = "the source is neither a file nor a directory";
        return Err(LoadFailure::new(LoadCode::BadModelFile, message));
    }
    let ggufs = files_with(source, "gguf");
    let dense = !files_with(source, "safetensors").is_empty();
    match (quant, ggufs.len()) {
        // Whether the format is the wanted one is seen once it is loaded.
        (_, 0) => Ok(source.to_owned()),
        (None, count) if dense || count == 1 => Ok(source.to_owned()),
        (None, _) => Err(LoadFailure::new(
            LoadCode::QuantNotFound,
            format!("the source holds several formats, name one as `quant`: {}", list(&ggufs)),
        )),
        (Some(quant), _) => {
            let wanted = quant.to_ascii_lowercase();
            let named = |file: &&PathBuf| name(file).to_ascii_lowercase().contains(&wanted);
            let found = ggufs.iter().find(named).cloned();
            found.or_else(|| dense.then(|| source.to_owned())).ok_or_else(|| {
                let message = format!(
                    "no file in the format `{}` is at the source; it holds: {}",
                    clip(quant),
                    list(&ggufs)
                );
                LoadFailure::new(LoadCode::QuantNotFound, message)
            })
        }
    }
}

/// The files of a directory with this extension, by their names.
pub(crate) fn files_with(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| name(file)).collect::<Vec<_>>().join(", ")
}

/// At most 100 characters of a caller's text, control characters spelled out.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_and_never_paths() {
        for id in ["sprout", "Qwen/Qwen3-0.6B", "a:b@c+d_e.f"] {
            assert!(is_model_id(id), "{id}");
        }
        let long = "a".repeat(257);
        for id in ["", "/", "/etc", "a//b", "a/", "..", "a/../b", ".x", "a\\b", "a\0b", "ä", &long]
        {
            assert!(!is_model_id(id), "{id:?}");
        }
    }

    #[test]
    fn only_what_lies_under_a_model_dir_is_allowed() {
        let home = tempfile::tempdir().unwrap();
        let models = home.path().join("models");
        fs::create_dir_all(models.join("org/good")).unwrap();
        fs::create_dir_all(home.path().join("secret")).unwrap();
        std::os::unix::fs::symlink(home.path().join("secret"), models.join("trap")).unwrap();
        let allowed = Allowed::new(vec![models.clone()]);
        let good = fs::canonicalize(models.join("org/good")).unwrap();
        assert_eq!(allowed.check(&models.join("org/good")), Ok(good.clone()));
        assert_eq!(allowed.look_up("org/good"), Ok(good));
        let secret = allowed.check(&home.path().join("secret"));
        let absent = allowed.check(&models.join("absent"));
        assert_eq!(secret, absent, "the two must not be told apart");
        assert!(secret.is_err());
        assert!(allowed.check(&models.join("../secret")).is_err());
        assert!(allowed.check(&models.join("trap")).is_err());
        assert!(allowed.look_up("trap").is_err());
        assert!(allowed.look_up("../secret").is_err());
        assert!(Allowed::default().look_up("org/good").is_err());
    }

    #[test]
    fn a_format_is_chosen_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(choose(dir.path(), None), Ok(dir.path().to_owned()));
        for name in ["m-Q4_K_M.gguf", "m-Q8_0.gguf"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(choose(dir.path(), Some("q8_0")), Ok(dir.path().join("m-Q8_0.gguf")));
        let error = choose(dir.path(), Some("Q5_K")).unwrap_err();
        assert_eq!(error.code, LoadCode::QuantNotFound);
        assert!(error.message.ends_with("m-Q4_K_M.gguf, m-Q8_0.gguf"), "{error}");
        assert_eq!(choose(dir.path(), None).unwrap_err().code, LoadCode::QuantNotFound);
        fs::write(dir.path().join("model.safetensors"), "x").unwrap();
        assert_eq!(choose(dir.path(), None), Ok(dir.path().to_owned()));
        assert_eq!(choose(dir.path(), Some("bf16")), Ok(dir.path().to_owned()));
        let gone = choose(&dir.path().join("gone"), None).unwrap_err();
        assert_eq!(gone.code, LoadCode::RepoNotFound);
    }
}
