//! One file: everything that it says of itself, checked when it is opened.

use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::metadata::{Index, Metadata};
use super::tensor::{Record, Table};
use super::{DEFAULT_ALIGNMENT, MAGIC};
use crate::Error;
use crate::load::{Mapped, TensorView, sniff};

/// An open file, which may be one of several that make a model.
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) version: u32,
    pub(super) tensors: Table,
    pub(super) warnings: Vec<String>,
    bytes: Mapped,
    metadata: Index,
}

impl Part {
    /// Checks `bytes`; `path` only names them in errors.
    pub(super) fn read(path: &Path, bytes: Mapped) -> Result<Self, Error> {
        let mut cursor = Cursor::new(&bytes, 0);
        let version = read_version(path, &mut cursor)?;
        let cut = || Error::bad(path, "header", "the file is cut short; download it again");
        let tensor_count = cursor.u64().ok_or_else(cut)?;
        let key_count = cursor.u64().ok_or_else(cut)?;
        let metadata = Index::read(path, &mut cursor, key_count)?;
        let mut tensors = Table::read(path, &mut cursor, tensor_count)?;

        let view = Metadata { file: path, bytes: &bytes, index: &metadata };
        let alignment = alignment(&view)?;
        let length = bytes.len() as u64;
        let start = (cursor.at() as u64).next_multiple_of(alignment);
        let end = tensors.place(path, start, alignment, length)?;
        let mut warnings = Vec::new();
        // Writers may pad the last tensor too.
        let spare = length.saturating_sub(end.next_multiple_of(alignment));
        if spare > 0 {
            warnings.push(format!("{spare} bytes after the last tensor are ignored"));
        }
        let path = path.to_path_buf();
        Ok(Self { path, version, metadata, tensors, warnings, bytes })
    }

    pub(super) fn metadata(&self) -> Metadata<'_> {
        Metadata { file: &self.path, bytes: &self.bytes, index: &self.metadata }
    }

    /// All tensors in the order of the file.
    pub(super) fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.records.iter().map(|record| self.view(record))
    }

    pub(super) fn view<'a>(&'a self, record: &'a Record) -> TensorView<'a> {
        let range = record.bytes.start as usize..record.bytes.end as usize;
        TensorView {
            name: &record.name,
            shape: record.shape.clone(),
            ty: record.ty,
            bytes: &self.bytes[range],
            file: &self.bytes,
        }
    }
}

/// Reads magic and version, and says what the file is if it is something else.
fn read_version(path: &Path, cursor: &mut Cursor<'_>) -> Result<u32, Error> {
    let mut head = *cursor;
    let known = sniff::recognise(head.take(head.remaining().min(256)).unwrap_or_default());
    let magic: Option<[u8; 4]> = cursor.array();
    match magic {
        Some(magic) if &magic == MAGIC => {}
        Some([b'F', b'U', b'G', b'G']) => {
            return Err(Error::refused(path, "is a byte-reversed GGUF file; convert it again"));
        }
        _ => {
            let what = known.unwrap_or("not a GGUF file (it does not begin with `GGUF`)");
            return Err(Error::refused(path, format!("is {what}")));
        }
    }
    let cut = || Error::bad(path, "header", "the file is cut short; download it again");
    match cursor.u32().ok_or_else(cut)? {
        version @ (2 | 3) => Ok(version),
        1 => Err(Error::refused(path, "is GGUF version 1, which is outdated; convert it again")),
        version if version.swap_bytes() <= 3 && version != 0 => {
            Err(Error::refused(path, "is a big-endian GGUF file; convert it to little-endian"))
        }
        version => {
            let reason = format!("version {version} is unknown; 2 and 3 are read");
            Err(Error::bad(path, "header", reason))
        }
    }
}

fn alignment(metadata: &Metadata<'_>) -> Result<u64, Error> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.find::<u32>(KEY)?.map_or(DEFAULT_ALIGNMENT, u64::from);
    if !alignment.is_power_of_two() {
        let found = alignment.to_string();
        return Err(Error::config(metadata.file(), KEY, "a power of two", found));
    }
    Ok(alignment)
}
