//! GGUF files, versions 2 and 3, little-endian.
//!
//! A model file is hostile input. Everything the file says of itself is checked when it is opened:
//! counts and lengths against the bytes that are there, products for overflow, names for
//! duplicates, tensors for overlap. After that a tensor is a slice.

mod cursor;
mod metadata;
mod tensor;
mod value;
pub mod write;

use std::path::{Path, PathBuf};

pub use metadata::{FromValue, Metadata};
pub use value::{Array, Value, ValueType};

use crate::Error;
use crate::load::{Mapped, TensorView, sniff};
use cursor::Cursor;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;

/// An open GGUF file.
pub struct Gguf {
    path: PathBuf,
    bytes: Mapped,
    version: u32,
    metadata: metadata::Index,
    tensors: tensor::Table,
    warnings: Vec<String>,
}

impl Gguf {
    /// Maps and checks the file at `path`.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Io`; `Refused` for what is not a GGUF file or a part of a split one; `BadFile`
    /// with the first thing that is wrong.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::read(path, Mapped::open(path)?)
    }

    /// Checks `bytes`; `path` only names them in errors.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub fn read(path: &Path, bytes: Mapped) -> Result<Self, Error> {
        let mut cursor = Cursor::new(&bytes, 0);
        let version = read_version(path, &mut cursor)?;
        let cut = || Error::bad(path, "header", "the file is cut short; download it again");
        let tensor_count = cursor.u64().ok_or_else(cut)?;
        let key_count = cursor.u64().ok_or_else(cut)?;
        let metadata = metadata::Index::read(path, &mut cursor, key_count)?;
        let mut tensors = tensor::Table::read(path, &mut cursor, tensor_count)?;

        let view = Metadata { file: path, bytes: &bytes, index: &metadata };
        refuse_split(&view)?;
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

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The key-value part.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata { file: &self.path, bytes: &self.bytes, index: &self.metadata }
    }

    /// What is odd about the file without making it bad, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.by_name.get(name).map(|&i| self.view(&self.tensors.records[i]))
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.records.iter().map(|record| self.view(record))
    }

    fn view<'a>(&'a self, record: &'a tensor::Record) -> TensorView<'a> {
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

fn refuse_split(metadata: &Metadata<'_>) -> Result<(), Error> {
    let count = metadata.find::<u64>("split.count")?.unwrap_or(0);
    if count > 1 {
        let part = metadata.find::<u64>("split.no")?.unwrap_or(0).saturating_add(1);
        let reason = format!(
            "is part {part} of {count} of a split model; merge the parts with \
             `llama-gguf-split --merge` first"
        );
        return Err(Error::refused(metadata.file(), reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
