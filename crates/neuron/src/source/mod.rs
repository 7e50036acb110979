//! Where a model's files are, and which of them a load may use.
//!
//! The rule: the operator's configuration may name any path in `[[default_models]] source`. A load
//! over HTTP may use only what lies under a directory of `model_dirs`, after every symbolic link
//! is followed. A model id is a key to look up and becomes a path only when each of its parts is
//! an ordinary name, and then only under `model_dirs`.

pub(crate) mod assets;
pub(crate) mod gguf_text;

use std::fs;
use std::path::{Path, PathBuf};

use model::{Recipe, gguf};

use crate::child::link::{LoadCode, LoadDetails, LoadFailure};
use crate::spelling;

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

/// What an engine is told to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// A file or a directory.
    pub(crate) path: PathBuf,
    /// The format to bring the weights into, unless the file was chosen for having it.
    pub(crate) quant: Option<String>,
}

/// The file or directory to load. Where a directory holds several GGUF models, that is the one
/// whose name has the format that was asked for; where there are float weights, they can be
/// brought into any format that is written.
pub(crate) fn choose(source: &Path, quant: Option<&str>) -> Result<Chosen, LoadFailure> {
    let Ok(metadata) = fs::metadata(source) else {
        let message = "nothing is at the configured source";
        return Err(LoadFailure::new(LoadCode::RepoNotFound, message));
    };
    if !metadata.is_file() && !metadata.is_dir() {
        let reason = "is neither a file nor a directory".to_owned();
        let message = format!("the source {reason}");
        let details = LoadDetails::File { file: name(source), item: "file".to_owned(), reason };
        return Err(LoadFailure::new(LoadCode::BadModelFile, message).with(details));
    }
    let (ggufs, dense) = if metadata.is_dir() {
        (gguf_models(source), !files_with(source, "safetensors").is_empty())
    } else {
        (vec![source.to_owned()], false)
    };
    let as_it_is = |path: &Path| Ok(Chosen { path: path.to_owned(), quant: None });
    let one = dense || ggufs.len() <= 1;
    let Some(quant) = quant else {
        let message = "the source holds several formats, name one as `quant`";
        return if one { as_it_is(source) } else { Err(no_format(message, "", &ggufs, false)) };
    };
    if let Some(named) = ggufs.iter().find(|file| names_format(file, quant)) {
        return as_it_is(named);
    }
    match Recipe::from_name(quant) {
        Some(recipe) if one => {
            Ok(Chosen { path: source.to_owned(), quant: Some(recipe.name().to_owned()) })
        }
        _ => {
            let message = format!("the format `{}` is neither at the source nor made", clip(quant));
            Err(no_format(&message, quant, &ggufs, one))
        }
    }
}

/// The refusal of a format, with those that there are: in files, and if one model can be
/// quantised, those that are written.
fn no_format(message: &str, quant: &str, ggufs: &[PathBuf], written: bool) -> LoadFailure {
    let mut available: Vec<String> = ggufs.iter().map(|file| format_in_name(file)).collect();
    if written {
        let others = Recipe::all().map(|recipe| recipe.name().to_owned());
        let others: Vec<_> = others.filter(|name| !available.contains(name)).collect();
        available.extend(others);
    }
    let nearest = Some(quant).filter(|quant| !quant.is_empty());
    let nearest = nearest.and_then(|quant| nearest_of(quant, &available));
    let hint = nearest.as_ref().map_or(String::new(), |near| format!("did you mean `{near}`? "));
    let message = format!("{message}; {hint}available: {}", available.join(", "));
    LoadFailure::new(LoadCode::QuantNotFound, message)
        .with(LoadDetails::Quant { available, nearest })
}

fn nearest_of(quant: &str, available: &[String]) -> Option<String> {
    spelling::nearest(quant, available.iter().map(String::as_str)).map(str::to_owned)
}

/// Whether the name of a file has this format in it, as a word of its own: `F16` is not in
/// `BF16`, nor `Q4_K` in `Q4_K_M`.
pub(crate) fn names_format(file: &Path, quant: &str) -> bool {
    let (name, quant) = (name(file).to_ascii_lowercase(), quant.to_ascii_lowercase());
    let ends = |c: char| !c.is_ascii_alphanumeric();
    let mut found = name.match_indices(&quant).map(|(at, _)| (&name[..at], &name[at..]));
    !quant.is_empty()
        && found.any(|(before, rest)| {
            let after = rest[quant.len()..].chars().next();
            before.chars().next_back().is_none_or(ends) && after.is_none_or(|c| ends(c) && c != '_')
        })
}

/// What a file's name says of its format: its last word.
fn format_in_name(file: &Path) -> String {
    let name = name(file);
    let stem = name.strip_suffix(".gguf").unwrap_or(&name);
    // A part of a split model: `NAME-00001-of-00002`.
    let part = stem.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-'));
    let stem = part.map_or(stem, |(stem, _)| stem);
    stem.rsplit(['-', '.']).next().unwrap_or(stem).to_owned()
}

/// The GGUF models of a directory, each by one of its files.
pub(crate) fn gguf_models(dir: &Path) -> Vec<PathBuf> {
    gguf::one_of_each(files_with(dir, "gguf"))
}

/// The files of a directory with this extension, by their names.
fn files_with(dir: &Path, extension: &str) -> Vec<PathBuf> {
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
        let chosen = |path: &str, quant: Option<&str>| {
            Ok(Chosen { path: dir.path().join(path), quant: quant.map(str::to_owned) })
        };
        let choose = |quant| choose(dir.path(), quant);
        assert_eq!(choose(None), chosen("", None));
        let parts = ["m-BF16-00001-of-00002.gguf", "m-BF16-00002-of-00002.gguf"];
        for name in ["m-Q4_K_M.gguf", "m-Q8_0.gguf"].into_iter().chain(parts) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(choose(Some("q8_0")), chosen("m-Q8_0.gguf", None));
        assert_eq!(choose(Some("bf16")), chosen(parts[0], None));
        // Of several models none is the one to quantise.
        for quant in ["Q4_K", "F16"] {
            let error = choose(Some(quant)).unwrap_err();
            assert_eq!(error.code, LoadCode::QuantNotFound);
            let Some(LoadDetails::Quant { available, nearest }) = error.details.as_deref() else {
                panic!()
            };
            assert_eq!(available, &["BF16", "Q4_K_M", "Q8_0"]);
            assert_eq!(nearest.as_deref(), Some(if quant == "F16" { "BF16" } else { "Q4_K_M" }));
        }
        assert_eq!(choose(None).unwrap_err().code, LoadCode::QuantNotFound);
        fs::write(dir.path().join("model.safetensors"), "x").unwrap();
        assert_eq!(choose(None), chosen("", None));
        assert_eq!(choose(Some("Q4_K_M")), chosen("m-Q4_K_M.gguf", None));
        assert_eq!(choose(Some("q6_k")), chosen("", Some("Q6_K")));
    }

    #[test]
    fn one_model_is_quantised_to_what_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m-BF16.gguf");
        fs::write(&file, "x").unwrap();
        let quantised = |path: &Path| Ok(Chosen { path: path.into(), quant: Some("Q8_0".into()) });
        assert_eq!(choose(&file, Some("q8_0")), quantised(&file));
        assert_eq!(choose(dir.path(), Some("Q8_0")), quantised(dir.path()));
        let error = choose(&file, Some("Q4_K_L")).unwrap_err();
        assert!(
            error.message.contains("did you mean `Q4_K_M`? available: BF16, F32, F16,"),
            "{error}"
        );
        let gone = choose(&dir.path().join("gone"), None).unwrap_err();
        assert_eq!(gone.code, LoadCode::RepoNotFound);
    }
}
