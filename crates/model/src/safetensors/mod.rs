//! Safetensors files, alone or as the shards of an index.
//!
//! The reader is stricter than the format's own: a name that is there twice, a hole between
//! tensors and a size of zero are refused too, since no writer of weights makes them.

mod header;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use kernels::quant::WeightType;

use crate::Error;
use crate::load::{Mapped, TensorView, sniff};
use header::{Entry, Index, Item, LARGEST_HEADER, Pairs};

/// The name of an index in a directory of shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// One or more open files whose tensors are looked up by name.
pub struct SafeTensors {
    shards: Vec<Shard>,
    /// Shard and record number.
    by_name: HashMap<String, (usize, usize)>,
}

struct Shard {
    path: PathBuf,
    bytes: Mapped,
    records: Vec<Record>,
}

struct Record {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    /// In the file.
    bytes: Range<usize>,
}

impl SafeTensors {
    /// Maps and checks one file.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Io`; `Refused` for what is not a safetensors file; `BadFile` with the first
    /// thing that is wrong.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::read(path, Mapped::open(path)?)
    }

    /// Checks `bytes`; `path` only names them in errors.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub fn read(path: &Path, bytes: Mapped) -> Result<Self, Error> {
        Self::of(vec![Shard::read(path, bytes)?])
    }

    /// Maps and checks all shards that the index at `path` names.
    ///
    /// # Errors
    ///
    /// As `open`; also `BadFile` for an index that names a file outside its directory, a tensor
    /// that is not in its shard, or for a tensor in two shards.
    pub fn open_index(path: &Path) -> Result<Self, Error> {
        let json = Mapped::open(path)?;
        if let Some(what) = sniff::recognise(&json) {
            return Err(Error::refused(path, format!("is {what}")));
        }
        let index: Index =
            serde_json::from_slice(&json).map_err(|e| Error::bad(path, "JSON", e.to_string()))?;
        let map = index.weight_map.0;
        let mut files: Vec<&str> = map.iter().map(|(_, file)| file.as_str()).collect();
        files.sort_unstable();
        files.dedup();
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut shards = Vec::new();
        for file in &files {
            let mut parts = Path::new(file).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                let reason = "is not the name of a file in the same directory";
                return Err(Error::bad(path, format!("shard `{}`", file.escape_debug()), reason));
            }
            let shard = directory.join(file);
            shards.push(Shard::read(&shard, Mapped::open(&shard)?)?);
        }
        let this = Self::of(shards)?;
        for (name, file) in &map {
            let found = this.by_name.get(name).map(|&(shard, _)| files[shard]);
            if found != Some(file.as_str()) {
                let item = format!("tensor `{}`", name.escape_debug());
                return Err(Error::bad(path, item, format!("is not in `{file}`")));
            }
        }
        Ok(this)
    }

    fn of(shards: Vec<Shard>) -> Result<Self, Error> {
        let mut by_name = HashMap::new();
        for (s, shard) in shards.iter().enumerate() {
            for (r, record) in shard.records.iter().enumerate() {
                if let Some((other, _)) = by_name.insert(record.name.clone(), (s, r)) {
                    // By its name alone: the two lie in one directory.
                    let other = shards[other].path.file_name().unwrap_or_default();
                    let reason = format!("is in {} too", other.to_string_lossy());
                    return Err(bad_tensor(&shard.path, &record.name, reason));
                }
            }
        }
        Ok(Self { shards, by_name })
    }

    /// The names of all tensors, shard by shard, in the order of their headers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|shard| &shard.records).map(|record| record.name.as_str())
    }

    /// The tensor of this name, if it is there.
    ///
    /// # Errors
    ///
    /// `BadFile` if its elements are not F32, F16 or BF16.
    pub fn tensor(&self, name: &str) -> Result<Option<TensorView<'_>>, Error> {
        let Some(&(shard, record)) = self.by_name.get(name) else { return Ok(None) };
        let shard = &self.shards[shard];
        let record = &shard.records[record];
        let ty = match record.dtype.as_str() {
            "F32" => WeightType::F32,
            "F16" => WeightType::F16,
            "BF16" => WeightType::BF16,
            other => {
                let reason = format!("expected F32, F16 or BF16 elements, found {other}");
                return Err(bad_tensor(&shard.path, name, reason));
            }
        };
        let bytes = &shard.bytes[record.bytes.clone()];
        let (name, shape) = (record.name.as_str(), record.shape.clone());
        Ok(Some(TensorView { name, shape, ty, bytes, file: &shard.bytes }))
    }
}

impl Shard {
    fn read(path: &Path, bytes: Mapped) -> Result<Self, Error> {
        let start = data_start(path, &bytes)?;
        let json = &bytes[8..start];
        if json.first() != Some(&b'{') {
            return Err(Error::bad(path, "header", "is not a JSON object"));
        }
        let Pairs(items) = serde_json::from_slice::<Pairs<Item>>(json)
            .map_err(|e| Error::bad(path, "header", e.to_string()))?;
        let mut records = Vec::new();
        for (name, item) in items {
            if let Item::Tensor(entry) = item {
                records.push(Record::new(path, name, &entry, start)?);
            }
        }
        check_places(path, &records, start, bytes.len())?;
        Ok(Self { path: path.to_path_buf(), bytes, records })
    }
}

impl Record {
    fn new(path: &Path, name: String, entry: &Entry, start: usize) -> Result<Self, Error> {
        let [begin, end] = entry.data_offsets;
        let wrong = |reason: String| Err(bad_tensor(path, &name, reason));
        let Some(width) = element_bytes(&entry.dtype) else {
            return wrong(format!("element type `{}` is unknown", entry.dtype.escape_debug()));
        };
        if entry.shape.contains(&0) {
            return wrong(format!("the shape {:?} has a zero", entry.shape));
        }
        let size = entry.shape.iter().try_fold(width, |size, &n| size.checked_mul(n));
        if size.is_none() || size != end.checked_sub(begin) {
            return wrong(format!(
                "the shape {:?} of {} does not take the bytes {begin} to {end}",
                entry.shape, entry.dtype
            ));
        }
        let place = |offset: u64| usize::try_from(offset).ok().and_then(|x| x.checked_add(start));
        let (Some(begin), Some(end)) = (place(begin), place(end)) else {
            return wrong(format!("the bytes {begin} to {end} are outside any file"));
        };
        let mut shape: Vec<usize> = entry.shape.iter().map(|&n| n as usize).collect();
        if shape.is_empty() {
            // A scalar; every other part of this crate can then rely on a last size.
            shape.push(1);
        }
        Ok(Self { name, dtype: entry.dtype.clone(), shape, bytes: begin..end })
    }
}

/// Where the data begins: after the length and the header.
fn data_start(path: &Path, bytes: &[u8]) -> Result<usize, Error> {
    let other = sniff::recognise(bytes).filter(|&what| what != sniff::SAFETENSORS);
    let bad = |reason: String| match other {
        Some(what) => Error::refused(path, format!("is {what}")),
        None => Error::bad(path, "header", reason),
    };
    let (Some(&length), true) = (bytes.first_chunk(), bytes.len() > 8) else {
        return Err(bad(format!("the file has {} bytes; the shortest has 10", bytes.len())));
    };
    let length = u64::from_le_bytes(length);
    let most = LARGEST_HEADER.min(bytes.len() as u64 - 8);
    if length == 0 || length > most {
        return Err(bad(format!("a length of {length} bytes is not between 1 and {most}")));
    }
    Ok(8 + length as usize)
}

/// Checks that the tensors fill the data: no hole, no overlap, nothing behind them.
fn check_places(path: &Path, records: &[Record], start: usize, length: usize) -> Result<(), Error> {
    let mut order: Vec<&Record> = records.iter().collect();
    order.sort_by_key(|record| record.bytes.start);
    let mut at = start;
    for record in order {
        if record.bytes.start != at {
            let what = if record.bytes.start < at { "overlaps" } else { "leaves a hole after" };
            let reason = format!("its data {what} the tensor before it");
            return Err(bad_tensor(path, &record.name, reason));
        }
        if record.bytes.end > length {
            let reason = format!(
                "its data ends at {}, but the file has {length} bytes: it is cut short; \
                 download it again",
                record.bytes.end
            );
            return Err(bad_tensor(path, &record.name, reason));
        }
        at = record.bytes.end;
    }
    if at != length {
        return Err(Error::bad(path, "data", format!("{} bytes belong to nothing", length - at)));
    }
    Ok(())
}

/// Bytes of one element of the format's types.
fn element_bytes(dtype: &str) -> Option<u64> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => Some(1),
        "U16" | "I16" | "F16" | "BF16" => Some(2),
        "U32" | "I32" | "F32" => Some(4),
        "U64" | "I64" | "F64" | "C64" => Some(8),
        _ => None,
    }
}

fn bad_tensor(path: &Path, name: &str, reason: impl Into<String>) -> Error {
    Error::bad(path, format!("tensor `{}`", name.escape_debug()), reason)
}

#[cfg(test)]
mod tests;
