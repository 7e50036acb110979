//! One file on its way: a partial file beside the model until its hash is right.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::client::{Attempt, Failure, Hub, again};
use super::listing::{Digest, HubFile};
use super::receipt::Place;
use super::watch::{Event, Watch};
use super::{PullError, RepoName};

const CHUNK_BYTES: usize = 256 << 10;

/// The hash of what was written so far.
enum Hash {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hash {
    /// Of the kind that this file is known by.
    fn of(file: &HubFile) -> Self {
        match file.digest {
            Digest::Sha256(_) => Self::Sha256(Sha256::new()),
            Digest::GitBlob(_) => {
                Self::GitBlob(Sha1::new().chain_update(format!("blob {}\0", file.size)))
            }
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::GitBlob(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hash) => Digest::Sha256(hex(&hash.finalize())),
            Self::GitBlob(hash) => Digest::GitBlob(hex(&hash.finalize())),
        }
    }
}

/// Whether the file at this path is the hub's, byte for byte. A link is not: what it leads to is
/// somebody else's.
pub(super) fn is_same(path: &Path, file: &HubFile) -> Result<bool, PullError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(false) };
    if !metadata.is_file() || metadata.len() != file.size {
        return Ok(false);
    }
    let unreadable = |error| PullError::disk(path, "cannot be read", &error);
    let mut hash = Hash::of(file);
    let mut opened = File::open(path).map_err(unreadable)?;
    hash_rest(&mut opened, &mut hash).map_err(unreadable)?;
    Ok(hash.finish() == file.digest)
}

fn hash_rest(file: &mut File, hash: &mut Hash) -> std::io::Result<u64> {
    let (mut buffer, mut len) = (vec![0; CHUNK_BYTES], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(len),
            Ok(count) => {
                hash.update(&buffer[..count]);
                len += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The beginning of a file, as far as it has come.
struct Part<'a> {
    path: PathBuf,
    target: &'a HubFile,
    file: File,
    hash: Hash,
    len: u64,
    /// Whether some of it came in an earlier try, or by another process.
    resumed: bool,
}

/// Where a partial file lies. Its name has the hash of the whole, so that bytes of two revisions
/// never meet in one file.
pub(super) fn part_path(place: &Place, file: &HubFile) -> PathBuf {
    let base = file.path.rsplit('/').next().unwrap_or(&file.path);
    // Names may be as long as the file system takes; the hash tells them apart.
    let base: String = base.chars().take(40).collect();
    place.state().join(format!("{base}.{}.part", &file.digest.hex()[..32]))
}

impl<'a> Part<'a> {
    fn open(place: &Place, target: &'a HubFile) -> Result<Self, PullError> {
        let path = part_path(place, target);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let wrong = |error| PullError::disk(&path, "cannot be opened", &error);
        let mut file = options.open(&path).map_err(wrong)?;
        let mut hash = Hash::of(target);
        let len = hash_rest(&mut file, &mut hash).map_err(wrong)?;
        let mut part = Self { path, target, file, hash, len, resumed: len > 0 };
        if len > target.size {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<(), PullError> {
        let cut = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cut.map_err(|error| PullError::disk(&self.path, "cannot be cut", &error))?;
        (self.hash, self.len, self.resumed) = (Hash::of(self.target), 0, false);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        if self.len + bytes.len() as u64 > self.target.size {
            self.restart()?;
            let (path, size) = (&self.target.path, self.target.size);
            let message = format!("{path}: more came than the {size} bytes that the hub announced");
            return Err(PullError::Corrupt(message));
        }
        let written = self.file.write_all(bytes);
        written.map_err(|error| PullError::disk(&self.path, "cannot be written", &error))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// One request for what is missing.
    fn go_on(
        &mut self,
        hub: &Hub,
        name: &RepoName,
        commit: &str,
        attempt: &mut Attempt<'_, '_>,
    ) -> Result<(), Failure> {
        let target = self.target;
        let stream = hub.open(name, commit, &target.path, self.len)?;
        if let (Some(Digest::Sha256(said)), Digest::Sha256(known)) =
            (&stream.digest, &target.digest)
            && said != known
        {
            let path = &target.path;
            let message = format!("{path}: the hub lists sha256 {known} and sends {said}");
            return Err(Failure::Final(PullError::Corrupt(message)));
        }
        if stream.from != self.len {
            self.restart().map_err(Failure::Final)?;
        }
        (attempt.watch)(Event::Started { path: &target.path, size: target.size, from: self.len });
        let (mut reader, mut buffer) = (stream.body.into_reader(), vec![0; CHUNK_BYTES]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.write(&buffer[..count]).map_err(Failure::Final)?;
                    attempt.got_somewhere();
                    (attempt.watch)(Event::Advanced(count as u64));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.resumed = true;
                    return Err(again(&error));
                }
            }
        }
        Ok(())
    }

    /// Whether all of it is there and right. A beginning from an earlier try may have been spoilt
    /// on the disk, so that one gets a second chance from the first byte on.
    fn check(&mut self) -> Result<(), Failure> {
        let (len, target) = (self.len, self.target);
        if len < target.size {
            self.resumed = true;
            let why = format!("the connection ended after {len} of {} bytes", target.size);
            return Err(again(&why));
        }
        let found = std::mem::replace(&mut self.hash, Hash::of(target)).finish();
        if found == target.digest {
            return Ok(());
        }
        let why = format!("its bytes have {found}, the hub announced {}", target.digest);
        if self.resumed {
            self.restart().map_err(Failure::Final)?;
            return Err(again(&format!("{why}; it is fetched from its beginning")));
        }
        let _ = fs::remove_file(&self.path);
        let message = format!("{}: {why}; nothing of it was kept", target.path);
        Err(Failure::Final(PullError::Corrupt(message)))
    }

    /// Gives it its final name, once it is on the disk for good.
    fn finish(self, place: &Place) -> Result<(), PullError> {
        let to = place.make_room_for(self.target.local())?;
        let wrong = |error| PullError::disk(&to, "cannot be put in place", &error);
        self.file.sync_all().map_err(wrong)?;
        fs::rename(&self.path, &to).map_err(wrong)?;
        let parent = to.parent().unwrap_or(&to);
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(wrong)
    }
}

/// Fetches a file of a pinned commit, going on where an earlier try ended.
pub(super) fn fetch(
    hub: &Hub,
    name: &RepoName,
    commit: &str,
    file: &HubFile,
    place: &Place,
    watch: &mut Watch<'_>,
) -> Result<(), PullError> {
    let mut part = Part::open(place, file)?;
    hub.patiently(&file.path, watch, |attempt| {
        if part.len < file.size {
            part.go_on(hub, name, commit, attempt)?;
        }
        part.check()
    })?;
    part.finish(place)?;
    watch(Event::Finished { path: &file.path });
    Ok(())
}
