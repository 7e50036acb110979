//! What was fetched into a directory, written beside it in `.pull`.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::listing::{Digest, HubFile, Listing};
use super::name::is_inside;
use super::{PullError, RepoName};

const STATE: &str = ".pull";
const RECEIPT: &str = "receipt.json";

/// A model's directory, and the hidden one in it that holds partial files, the receipt and a lock.
pub(super) struct Place {
    dir: PathBuf,
    /// Held until the pull ends, however it ends.
    _lock: Option<File>,
}

impl Place {
    /// Makes the directories and keeps other pulls out.
    pub(super) fn open(dir: &Path) -> Result<Self, PullError> {
        let wrong = |error| PullError::disk(dir, "cannot be used", &error);
        fs::create_dir_all(dir).map_err(wrong)?;
        let place = Self { dir: dir.to_owned(), _lock: None };
        make_dir(&place.state())?;
        let lock = File::create(place.state().join("lock")).map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: Some(lock), ..place }),
            Err(TryLockError::WouldBlock) => {
                let dir = dir.display();
                Err(PullError::Disk(format!("{dir}: another pull is at work there; wait for it")))
            }
            Err(TryLockError::Error(error)) => Err(wrong(error)),
        }
    }

    /// For a look that changes nothing.
    pub(super) fn as_it_is(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), _lock: None }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn state(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// The final path of a file, whose directories are made. None of them may be a link, which
    /// would lead the file elsewhere.
    pub(super) fn make_room_for(&self, local: &str) -> Result<PathBuf, PullError> {
        let mut path = self.dir.clone();
        let mut parts = local.split('/').peekable();
        while let Some(part) = parts.next() {
            path.push(part);
            if parts.peek().is_some() {
                make_dir(&path)?;
            }
        }
        Ok(path)
    }

    /// Bytes that this user may still write there.
    pub(super) fn free_bytes(&self) -> Result<u64, PullError> {
        let stat = rustix::fs::statvfs(&self.dir).map_err(|error| {
            PullError::disk(&self.dir, "cannot be asked for room", &error.into())
        })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn make_dir(path: &Path) -> Result<(), PullError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => {
            let path = path.display();
            Err(PullError::Disk(format!("{path}: is a link or a file, and should be a directory")))
        }
        Err(_) => {
            fs::create_dir(path).map_err(|error| PullError::disk(path, "cannot be made", &error))
        }
    }
}

/// A file that is there, and how it looked when its hash was right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Have {
    size: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    digest: Digest,
}

/// What a directory has, and what its repository has at that commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) repo: String,
    pub(super) revision: String,
    pub(super) listing: Listing,
    /// By path in the directory.
    have: BTreeMap<String, Have>,
}

impl Receipt {
    /// Of an earlier pull; one that cannot be read is none, and the files speak for themselves.
    pub(super) fn read(place: &Place) -> Option<Self> {
        let text = fs::read(place.state().join(RECEIPT)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// For another look at the same repository.
    pub(super) fn renewed(old: Option<Self>, name: &RepoName, listing: Listing) -> Self {
        let have = old.filter(|old| old.repo == name.repo).map(|old| old.have);
        let (repo, revision) = (name.repo.clone(), name.revision.clone());
        Self { repo, revision, listing, have: have.unwrap_or_default() }
    }

    /// Whether it stands for what is asked for: the revision by its name, or as a commit.
    pub(super) fn is_of(&self, name: &RepoName) -> bool {
        let revision = [&self.revision, &self.listing.commit].contains(&&name.revision);
        self.repo == name.repo && revision
    }

    /// Whether a file is there as it was when it was fetched.
    pub(super) fn has(&self, place: &Place, file: &HubFile) -> bool {
        let same = |have: &Have| {
            have.digest == file.digest && look(place, file).is_some_and(|now| now == *have)
        };
        self.have.get(file.local()).is_some_and(same)
    }

    /// Writes down that a file is there, and right.
    pub(super) fn add(&mut self, place: &Place, file: &HubFile) -> Result<(), PullError> {
        if let Some(have) = look(place, file) {
            self.have.insert(file.local().to_owned(), have);
        }
        self.write(place)
    }

    /// Takes away what an earlier revision had and this one has not: weights of both in one
    /// directory would be no model.
    pub(super) fn prune(&mut self, place: &Place) -> Result<(), PullError> {
        let listed = |local: &String| self.listing.files.iter().any(|file| file.local() == local);
        let gone = self.have.keys().filter(|local| !listed(local) && is_inside(local));
        let gone: Vec<_> = gone.cloned().collect();
        for local in &gone {
            // What cannot be taken away is not taken from the list either.
            let path = place.dir().join(local);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(PullError::disk(&path, "cannot be taken away", &error));
            }
            self.have.remove(local);
        }
        self.write(place)
    }

    fn write(&self, place: &Place) -> Result<(), PullError> {
        let (path, new) = (place.state().join(RECEIPT), place.state().join("receipt.new"));
        let wrong = |error| PullError::disk(&path, "cannot be written", &error);
        let text = serde_json::to_vec_pretty(self).map_err(|error| wrong(error.into()))?;
        let mut file = File::create(&new).map_err(wrong)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(wrong)?;
        fs::rename(&new, &path).map_err(wrong)
    }
}

fn look(place: &Place, file: &HubFile) -> Option<Have> {
    let metadata = fs::symlink_metadata(place.dir().join(file.local())).ok()?;
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    let (size, digest) = (metadata.len(), file.digest.clone());
    (metadata.is_file() && size == file.size).then_some(Have { size, modified, digest })
}
