//! Which files of a repository a load needs.

use std::collections::BTreeSet;
use std::path::Path;

use glob::{MatchOptions, Pattern};
use model::Recipe;
use model::safetensors::INDEX_FILE;
use serde::Deserialize;

use super::PullError;
use super::listing::{HubFile, Listing};
use super::name::is_hidden;
use crate::source::names_format;

/// What stands beside the weights and is read with them, or by those who look after them
/// (requirement 108).
const BESIDE: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "1_Pooling/config.json",
];
/// Of those, what no load can do without.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];

/// What to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// A directory of safetensors; where an index is among the files, it names the weights.
    Directory(Vec<&'a HubFile>),
    /// A GGUF model, its first part first.
    Gguf(Vec<&'a HubFile>),
    /// Files that are no model by themselves.
    Loose(Vec<&'a HubFile>),
}

/// Chooses by what the caller names: a file or a pattern of paths, or else a format. The format of
/// a repository of float weights is made by the load, so it chooses a file only where there is one.
pub(super) fn choose<'a>(
    repo: &str,
    listing: &'a Listing,
    file: Option<&str>,
    quant: Option<&str>,
) -> Result<Choice<'a>, PullError> {
    let seen: Vec<_> = listing.files.iter().filter(|file| !is_hidden(&file.path)).collect();
    if let Some(file) = file {
        return named(repo, &seen, file, quant);
    }
    let models = gguf_models(repo, &seen)?;
    let fits = |model: &Vec<&HubFile>| quant.is_some_and(|quant| has_format(model, quant));
    let fitting = models.iter().filter(|model| fits(model)).count();
    if is_directory(&seen) && fitting == 0 {
        return directory(repo, &seen, quant);
    }
    if models.is_empty() {
        return Err(no_weights(repo, &seen));
    }
    one_of(repo, &models, quant)
}

fn is_directory(files: &[&HubFile]) -> bool {
    let root = |path: &str| !path.contains('/') && path.ends_with(".safetensors");
    files.iter().any(|file| root(&file.path) || file.path == INDEX_FILE)
}

fn directory<'a>(
    repo: &str,
    files: &[&'a HubFile],
    quant: Option<&str>,
) -> Result<Choice<'a>, PullError> {
    if let Some(quant) = quant.filter(|quant| Recipe::from_name(quant).is_none()) {
        let known: Vec<_> = Recipe::all().map(Recipe::name).collect();
        return Err(PullError::Refused(format!(
            "{repo} has float weights, which a load can bring into: {}; not `{}`",
            known.join(", "),
            quant.escape_debug()
        )));
    }
    let find = |path: &str| files.iter().copied().find(|file| file.path == path);
    if let Some(missing) = NEEDED.into_iter().find(|name| find(name).is_none()) {
        return Err(PullError::Refused(format!(
            "{repo} has no {missing}, without which it cannot be loaded; a repository of the same \
             model in GGUF files may do"
        )));
    }
    let mut chosen: Vec<_> = BESIDE.into_iter().filter_map(find).collect();
    if let Some(weights) = find(INDEX_FILE).or_else(|| find("model.safetensors")) {
        chosen.push(weights);
        return Ok(Choice::Directory(chosen));
    }
    let root = |file: &&&HubFile| file.path.ends_with(".safetensors") && !file.path.contains('/');
    match files.iter().filter(root).copied().collect::<Vec<_>>().as_slice() {
        [only] => chosen.push(only),
        several => {
            let message = "has several safetensors files and no index of them";
            return Err(PullError::Refused(format!("{repo} {message}:\n{}", lines(several))));
        }
    }
    Ok(Choice::Directory(chosen))
}

/// The shards that an index names, each of which the listing must have.
pub(super) fn shards<'a>(
    repo: &str,
    listing: &'a Listing,
    index: &[u8],
) -> Result<Vec<&'a HubFile>, PullError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::HashMap<String, String>,
    }
    let wrong = |what: String| PullError::Refused(format!("{repo}: {INDEX_FILE} {what}"));
    let index: Index =
        serde_json::from_slice(index).map_err(|error| wrong(format!("is no index: {error}")))?;
    let names: BTreeSet<_> = index.weight_map.into_values().collect();
    let find = |name: String| {
        let known = listing.find(&name).filter(|file| !is_hidden(&file.path));
        let name = name.escape_debug();
        known.ok_or_else(|| wrong(format!("names `{name}`, which the repository does not have")))
    };
    names.into_iter().map(find).collect()
}

/// What a name or a pattern stands for; `*` and `?` match no slash.
fn named<'a>(
    repo: &str,
    files: &[&'a HubFile],
    file: &str,
    quant: Option<&str>,
) -> Result<Choice<'a>, PullError> {
    let pattern = Pattern::new(file)
        .map_err(|error| PullError::Refused(format!("--file {file}: no pattern: {error}")))?;
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        ..Default::default()
    };
    let fits = |path: &str| {
        let base = path.rsplit('/').next().unwrap_or(path);
        path == file || pattern.matches_with(path, options) || pattern.matches_with(base, options)
    };
    let found: Vec<_> = files.iter().copied().filter(|file| fits(&file.path)).collect();
    if found.is_empty() {
        return Err(PullError::Refused(format!(
            "{repo} has no file `{}`; it has:\n{}",
            file.escape_debug(),
            lines(files)
        )));
    }
    // One part named means all of them.
    let wanted: BTreeSet<_> = found.iter().filter_map(|file| model_of(&file.path)).collect();
    let whole = |file: &&&HubFile| model_of(&file.path).is_some_and(|model| wanted.contains(model));
    let ggufs: Vec<_> = files.iter().filter(whole).copied().collect();
    if ggufs.is_empty() {
        return Ok(Choice::Loose(found));
    }
    one_of(repo, &grouped(repo, &ggufs)?, quant)
}

fn one_of<'a>(
    repo: &str,
    models: &[Vec<&'a HubFile>],
    quant: Option<&str>,
) -> Result<Choice<'a>, PullError> {
    let fits = |model: &&Vec<&HubFile>| quant.is_none_or(|quant| has_format(model, quant));
    let why = match models.iter().filter(fits).collect::<Vec<_>>().as_slice() {
        [only] => return Ok(Choice::Gguf((*only).clone())),
        [] => format!("none of the format `{}`", quant.unwrap_or_default().escape_debug()),
        several => format!("{} GGUF models that this could mean", several.len()),
    };
    let size = |model: &Vec<&HubFile>| model.iter().map(|file| file.size).sum();
    let list = models.iter().map(|model| line(&model[0].path, size(model)));
    let list: Vec<_> = list.collect();
    Err(PullError::Refused(format!(
        "{repo} has {why}; name one by --quant, such as Q4_K_M, or by --file:\n{}",
        list.join("\n")
    )))
}

fn has_format(model: &[&HubFile], quant: &str) -> bool {
    model.first().is_some_and(|file| names_format(Path::new(&file.path), quant))
}

/// The models among GGUF files that a load can take: neither projectors of pictures nor tables of
/// importances, which some repositories hold beside them.
fn gguf_models<'a>(repo: &str, files: &[&'a HubFile]) -> Result<Vec<Vec<&'a HubFile>>, PullError> {
    let aside = |path: &str| {
        let path = path.to_ascii_lowercase();
        path.contains("mmproj") || path.contains("imatrix")
    };
    let files: Vec<_> =
        files.iter().copied().filter(|file| file.is_gguf() && !aside(&file.path)).collect();
    grouped(repo, &files)
}

/// Files of split models together, their parts in order and all there.
fn grouped<'a>(repo: &str, files: &[&'a HubFile]) -> Result<Vec<Vec<&'a HubFile>>, PullError> {
    let mut sorted: Vec<_> = files.iter().copied().filter(|file| file.is_gguf()).collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut models: Vec<Vec<&HubFile>> = Vec::new();
    for file in sorted {
        let model = model_of(&file.path);
        match models.last_mut().filter(|last| model_of(&last[0].path) == model) {
            Some(last) => last.push(file),
            None => models.push(vec![file]),
        }
    }
    for model in &models {
        let parts = part_of(&model[0].path).map_or(1, |(_, count)| count);
        let first = part_of(&model[0].path).is_none_or(|(number, _)| number == 1);
        if parts != model.len() || !first {
            let (name, found) = (&model[0].path, model.len());
            return Err(PullError::Refused(format!(
                "{repo}: {name} is one of {parts} parts, of which {found} are there"
            )));
        }
    }
    Ok(models)
}

/// The number of a part and how many there are: `NAME-00001-of-00003.gguf`.
fn part_of(path: &str) -> Option<(usize, usize)> {
    let stem = path.get(..path.len().checked_sub(".gguf".len())?)?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (_, number) = rest.rsplit_once('-')?;
    let read = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    Some((read(number)?, read(count)?))
}

/// What all parts of a model have in common, of any GGUF file.
fn model_of(path: &str) -> Option<&str> {
    if !path.to_ascii_lowercase().ends_with(".gguf") {
        return None;
    }
    let tail = "-00001-of-00001.gguf".len();
    Some(if part_of(path).is_some() { &path[..path.len() - tail] } else { path })
}

fn no_weights(repo: &str, files: &[&HubFile]) -> PullError {
    let pickle = |file: &&&HubFile| {
        [".bin", ".pt", ".pth"].iter().any(|end| file.path.to_ascii_lowercase().ends_with(end))
    };
    let why = match files.iter().find(pickle) {
        Some(file) => format!("only pickle weights ({}), which are never read", file.path),
        None => "neither safetensors nor GGUF files".to_owned(),
    };
    PullError::Refused(format!("{repo} has {why}; it has:\n{}", lines(files)))
}

/// At most thirty of them, each on its line.
fn lines(files: &[&HubFile]) -> String {
    const MOST: usize = 30;
    let mut list: Vec<_> =
        files.iter().take(MOST).map(|file| line(&file.path, file.size)).collect();
    if let Some(more) = files.len().checked_sub(MOST).filter(|more| *more > 0) {
        list.push(format!("  and {more} more"));
    }
    list.join("\n")
}

fn line(path: &str, size: u64) -> String {
    format!("  {:>9}  {path}", in_words(size))
}

/// A number of bytes as the hub's pages write it.
pub(super) fn in_words(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests;
