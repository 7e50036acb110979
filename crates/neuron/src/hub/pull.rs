//! A model from the hub to a directory, whole.

use std::fs;
use std::path::{Path, PathBuf};

use model::ModelConfig;
use model::safetensors::INDEX_FILE;

use super::choose::{self, Choice, in_words};
use super::listing::HubFile;
use super::receipt::{Place, Receipt};
use super::watch::{Event, Watch};
use super::{Hub, PullError, RepoName, file};

/// What others may write meanwhile: a pull that fills a disk to its last byte harms them.
const SPARE_BYTES: u64 = 64 << 20;
/// Indices of the largest models have some 10 MiB.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// What is wanted of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The repository and its revision.
    pub name: RepoName,
    /// A file, or a pattern of files.
    pub file: Option<String>,
    /// The weights' format: of a GGUF file, or what the load will make of float weights.
    pub quant: Option<String>,
}

/// What is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// What a load's `source` can be: a directory or a GGUF file. `None` after a pull of files that
    /// are no model by themselves.
    pub source: Option<PathBuf>,
    /// The directory that all of it lies in.
    pub dir: PathBuf,
    /// The commit that it is of.
    pub commit: String,
    /// Files that were fetched; 0 if all was there.
    pub fetched: usize,
    /// Whether a load can bring the weights into another format.
    pub is_float: bool,
}

/// Brings what is asked for into `dir`, the model's own directory. Offline, only looks whether it
/// is there.
///
/// # Errors
///
/// See [`PullError`]; what came until then stays, and the next call goes on there.
pub fn pull(
    hub: &Hub,
    ask: &Ask,
    dir: &Path,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Pulled, PullError> {
    let offline = hub.is_offline();
    let name = &ask.name;
    let (place, receipt) = if offline {
        let place = Place::as_it_is(dir);
        let receipt = Receipt::read(&place).filter(|receipt| receipt.is_of(name));
        (place, receipt.ok_or_else(|| not_here(name, dir))?)
    } else {
        // Before anything is made on the disk, so that a mistyped name leaves no directory.
        let listing = hub.listing(name, watch)?;
        choose::choose(&name.repo, &listing, ask.file.as_deref(), ask.quant.as_deref())?;
        let place = Place::open(dir)?;
        let receipt = Receipt::renewed(Receipt::read(&place), name, listing);
        (place, receipt)
    };
    let mut work = Work { hub, name, place, receipt, fetched: 0 };
    let found = work.bring(ask, watch)?;
    if !offline {
        work.receipt.prune(&work.place)?;
    }
    let (source, is_float) = match found {
        Found::Directory => (Some(dir.to_owned()), true),
        Found::Gguf(local) => (Some(dir.join(local)), false),
        Found::Loose => (None, false),
    };
    let (dir, commit) = (dir.to_owned(), work.receipt.listing.commit);
    Ok(Pulled { source, dir, commit, fetched: work.fetched, is_float })
}

enum Found {
    Directory,
    /// The first part.
    Gguf(String),
    Loose,
}

struct Work<'a> {
    hub: &'a Hub,
    name: &'a RepoName,
    place: Place,
    receipt: Receipt,
    fetched: usize,
}

impl Work<'_> {
    fn bring(&mut self, ask: &Ask, watch: &mut Watch<'_>) -> Result<Found, PullError> {
        let repo = &self.name.repo;
        // The receipt changes while files come; the listing in it does not.
        let listing = self.receipt.listing.clone();
        match choose::choose(repo, &listing, ask.file.as_deref(), ask.quant.as_deref())? {
            Choice::Directory(files) => {
                let weights = |file: &&&HubFile| file.path.ends_with(".safetensors");
                let (weights, words): (Vec<_>, Vec<_>) = files.iter().partition(weights);
                // Small files first: they say whether the large ones are of any use, and which.
                self.bring_files(&words, watch)?;
                self.check_config(&listing.files)?;
                let index = words.iter().find(|file| file.path == INDEX_FILE);
                let shards = match index {
                    Some(file) => choose::shards(repo, &listing, &self.read(file)?)?,
                    None => weights,
                };
                self.bring_files(&shards, watch)?;
                Ok(Found::Directory)
            }
            Choice::Gguf(files) => {
                self.bring_files(&files, watch)?;
                Ok(Found::Gguf(files[0].local().to_owned()))
            }
            Choice::Loose(files) => self.bring_files(&files, watch).map(|()| Found::Loose),
        }
    }

    /// Fetches those that are not there. The room for all of them is looked for before the first.
    fn bring_files(&mut self, files: &[&HubFile], watch: &mut Watch<'_>) -> Result<(), PullError> {
        let mut missing = Vec::new();
        for &file in files {
            if self.receipt.has(&self.place, file) {
                continue;
            }
            // What another program put there is taken as it is, if it is right.
            let path = self.place.dir().join(file.local());
            if !self.hub.is_offline() && file::is_same(&path, file)? {
                self.receipt.add(&self.place, file)?;
                continue;
            }
            missing.push(file);
        }
        if missing.is_empty() {
            return Ok(());
        }
        if self.hub.is_offline() {
            let list: Vec<_> = missing.iter().map(|file| format!("  {}", file.path)).collect();
            let (name, dir, list) = (self.name, self.place.dir().display(), list.join("\n"));
            let message = format!("{name}: not in {dir}, or changed since it was fetched:\n{list}");
            return Err(PullError::Refused(format!(
                "{message}\nleave out --offline to fetch them"
            )));
        }
        let partial = |file: &HubFile| {
            let path = file::part_path(&self.place, file);
            fs::symlink_metadata(path).map_or(0, |metadata| metadata.len().min(file.size))
        };
        let bytes = missing.iter().map(|file| file.size - partial(file)).sum();
        self.check_room(bytes)?;
        watch(Event::Planned { files: missing.len(), bytes });
        let commit = self.receipt.listing.commit.clone();
        for file in missing {
            file::fetch(self.hub, self.name, &commit, file, &self.place, watch)?;
            self.receipt.add(&self.place, file)?;
            self.fetched += 1;
        }
        Ok(())
    }

    fn check_room(&self, bytes: u64) -> Result<(), PullError> {
        let (free, dir) = (self.place.free_bytes()?, self.place.dir().display());
        if bytes.saturating_add(SPARE_BYTES) <= free {
            return Ok(());
        }
        let (name, bytes, free) = (self.name, in_words(bytes), in_words(free));
        Err(PullError::Disk(format!(
            "{name} needs {bytes} more in {dir}, where {free} are free: make room, or name another \
             directory with --into"
        )))
    }

    /// Refuses a model that no load would take before its weights are fetched (requirements 38
    /// and 39).
    fn check_config(&self, files: &[HubFile]) -> Result<(), PullError> {
        let Some(file) = files.iter().find(|file| file.path == "config.json") else {
            return Ok(());
        };
        let path = self.place.dir().join(file.local());
        let wrong = |error: String| {
            PullError::Refused(format!("{} cannot be loaded: {error}", self.name.repo))
        };
        let json = serde_json::from_slice(&self.read(file)?);
        let json = json.map_err(|error| wrong(format!("config.json: {error}")))?;
        let read = ModelConfig::from_hugging_face(&path, &json);
        read.map(drop).map_err(|error| wrong(error.to_string()))
    }

    fn read(&self, file: &HubFile) -> Result<Vec<u8>, PullError> {
        let path = self.place.dir().join(file.local());
        if file.size > MAX_JSON_BYTES {
            let message = format!("{}: {} bytes are too many for JSON", file.path, file.size);
            return Err(PullError::Refused(message));
        }
        fs::read(&path).map_err(|error| PullError::disk(&path, "cannot be read", &error))
    }
}

fn not_here(name: &RepoName, dir: &Path) -> PullError {
    let dir = dir.display();
    PullError::Refused(format!(
        "{name} was never fetched into {dir}, and nothing is asked of the hub offline"
    ))
}
