//! GGUF files, versions 2 and 3, little-endian, whole or split into several.
//!
//! A model file is hostile input. Everything the file says of itself is checked when it is opened:
//! counts and lengths against the bytes that are there, products for overflow, names for
//! duplicates, tensors for overlap. After that a tensor is a slice.

mod cursor;
mod metadata;
mod part;
mod split;
mod tensor;
mod value;
pub mod write;

use std::collections::HashMap;
use std::path::Path;

pub use metadata::{FromValue, Metadata};
pub use split::one_of_each;
pub use value::{Array, Value, ValueType};

use crate::Error;
use crate::load::{Mapped, TensorView};
use part::Part;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;

/// An open model: one file, or all files of a split one.
pub struct Gguf {
    /// At least one; the first has the metadata of all.
    parts: Vec<Part>,
    /// Part and record number.
    by_name: HashMap<String, (usize, usize)>,
    warnings: Vec<String>,
}

impl Gguf {
    /// Maps and checks the file at `path`, and those beside it that belong to the same model.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Io`; `Refused` for what is not a GGUF file; `BadFile` with the first thing that
    /// is wrong, such as a part of a split model that is missing.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of(split::open_all(path)?)
    }

    /// Checks the `bytes` of a whole model; `path` only names them in errors.
    ///
    /// # Errors
    ///
    /// As `open`; also `BadFile` for one part of several.
    pub fn read(path: &Path, bytes: Mapped) -> Result<Self, Error> {
        let part = Part::read(path, bytes)?;
        split::refuse_part(&part)?;
        Self::of(vec![part])
    }

    fn of(parts: Vec<Part>) -> Result<Self, Error> {
        let mut by_name = HashMap::new();
        let mut warnings = Vec::new();
        for (p, part) in parts.iter().enumerate() {
            for (r, record) in part.tensors.records.iter().enumerate() {
                if let Some((other, _)) = by_name.insert(record.name.clone(), (p, r)) {
                    let other: &Part = &parts[other];
                    let item = format!("tensor `{}`", record.name.escape_debug());
                    let reason = format!("is in {} too", split::name(&other.path));
                    return Err(Error::bad(&part.path, item, reason));
                }
            }
            warnings.extend(part.warnings.iter().cloned());
        }
        Ok(Self { parts, by_name, warnings })
    }

    /// The path of the file, of a split model that of its first part.
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// The files that the model is in.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.parts[0].version
    }

    /// The key-value part.
    pub fn metadata(&self) -> Metadata<'_> {
        self.parts[0].metadata()
    }

    /// What is odd about the file without making it bad, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let &(part, record) = self.by_name.get(name)?;
        Some(self.parts[part].view(&self.parts[part].tensors.records[record]))
    }

    /// All tensors in the order of the files.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.parts.iter().flat_map(Part::tensors)
    }
}

#[cfg(test)]
mod tests;
