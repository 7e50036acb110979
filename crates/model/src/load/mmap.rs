//! A file as a slice of bytes.

use std::fmt;
use std::fs::{self, File};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use crate::Error;

/// The bytes of a regular file, mapped read-only, or bytes that are already in memory.
///
/// The length is fixed when the file is opened. If another process truncates the file while it is
/// mapped, reading the lost part ends this process (SIGBUS): replace model files by renaming.
///
/// A clone is another handle to the same bytes.
#[derive(Clone)]
pub struct Mapped(Arc<Bytes>);

enum Bytes {
    File(memmap2::Mmap),
    Memory(Vec<u8>),
}

impl Mapped {
    /// Maps the file at `path`.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Refused` if it is a directory, pipe, socket or device (which is found out
    /// without opening it, so that a pipe does not hang the caller); `Io` otherwise.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let kind = fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if !kind.is_file() {
            let what = if kind.is_dir() { "a directory" } else { "a pipe, socket or device" };
            return Err(Error::refused(path, format!("is {what}, not a regular file")));
        }
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        if kind.len() == 0 {
            return Ok(Vec::new().into());
        }
        // SAFETY: the map is private to this value and read-only, and what is read from it is
        // checked each time it is used, so a write by another process can give wrong numbers but
        // not undefined values of a Rust type other than `u8`. Truncation is a signal, as the
        // type's documentation says.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self(Arc::new(Bytes::File(map))))
    }
}

impl Mapped {
    /// A part of the bytes whose pages this process gives back with the last use of the part.
    pub(super) fn region(&self, range: Range<usize>) -> Region {
        Region { file: self.clone(), range }
    }

    /// Gives back the pages of a range; whoever reads them again gets them from the file.
    fn release(&self, range: &Range<usize>) {
        let Bytes::File(map) = &*self.0 else { return };
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the map is read-only, so no page holds anything but what the file holds: a slice
        // of a page that was given back reads the same bytes as before.
        let done = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
        // It would only have saved memory.
        drop(done);
    }
}

/// See [`Mapped::region`].
pub(super) struct Region {
    file: Mapped,
    range: Range<usize>,
}

impl AsRef<[u8]> for Region {
    fn as_ref(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.file.release(&self.range);
    }
}

impl From<Vec<u8>> for Mapped {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Bytes::Memory(bytes)))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.0 {
            Bytes::File(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({} bytes)", self.len())
    }
}
