//! The tensor records: each is checked alone, then all against each other and the file.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use kernels::quant::WeightType;

use super::cursor::Cursor;
use crate::Error;
use crate::quant_names::describe_unsupported;

/// More tensors than any model has; a bound on what a hostile file can make us remember.
const MOST_TENSORS: u64 = 100_000;
const MOST_DIMENSIONS: u32 = 4;
/// A length, one character, the number of sizes, one size, type and offset.
const LEAST_RECORD_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// One record, with its place in the file once the data's beginning is known.
pub(super) struct Record {
    pub(super) name: String,
    /// Outermost first.
    pub(super) shape: Vec<usize>,
    pub(super) ty: WeightType,
    /// Relative to the data until `place`, then in the file.
    pub(super) bytes: Range<u64>,
}

/// All tensors of a file.
pub(super) struct Table {
    pub(super) records: Vec<Record>,
}

impl Table {
    /// Reads `count` records.
    pub(super) fn read(file: &Path, cursor: &mut Cursor<'_>, count: u64) -> Result<Self, Error> {
        if count > MOST_TENSORS || count > cursor.remaining() / LEAST_RECORD_BYTES {
            let reason = format!("{count} tensors cannot be in this file");
            return Err(Error::bad(file, "header", reason));
        }
        let mut table = Self { records: Vec::new() };
        let mut seen = HashSet::new();
        for i in 0..count {
            let record = Record::read(file, cursor, i)?;
            if !seen.insert(record.name.clone()) {
                return Err(bad_tensor(file, &record.name, "the name is there twice"));
            }
            table.records.push(record);
        }
        Ok(table)
    }

    /// Moves the records to their place in a file of `length` bytes whose data begins at `start`.
    /// Returns where the last tensor ends.
    pub(super) fn place(
        &mut self,
        file: &Path,
        start: u64,
        alignment: u64,
        length: u64,
    ) -> Result<u64, Error> {
        for record in &mut self.records {
            record.place(file, start, alignment, length)?;
        }
        let mut order: Vec<&Record> = self.records.iter().collect();
        order.sort_by_key(|record| record.bytes.start);
        for pair in order.windows(2) {
            if pair[1].bytes.start < pair[0].bytes.end {
                let reason = format!("its data overlaps that of `{}`", pair[0].name);
                return Err(bad_tensor(file, &pair[1].name, reason));
            }
        }
        Ok(order.last().map_or(start, |record| record.bytes.end))
    }
}

impl Record {
    fn read(file: &Path, cursor: &mut Cursor<'_>, number: u64) -> Result<Self, Error> {
        let item = format!("tensor record {number}");
        let cut = || Error::bad(file, item.as_str(), "the file ends inside this record");
        let name = cursor.string().ok_or_else(cut)?;
        let name = match str::from_utf8(name) {
            Ok("") => return Err(Error::bad(file, item, "the name is empty")),
            Ok(name) => name.to_owned(),
            Err(_) => return Err(Error::bad(file, item, "the name is not UTF-8")),
        };
        let dimensions = cursor.u32().ok_or_else(cut)?;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            let reason = format!("it has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} are good");
            return Err(bad_tensor(file, &name, reason));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(cursor.u64().ok_or_else(cut)?);
        }
        let id = cursor.u32().ok_or_else(cut)?;
        let offset = cursor.u64().ok_or_else(cut)?;
        let unsupported = || bad_tensor(file, &name, describe_unsupported(id));
        let ty = WeightType::from_ggml_id(id).ok_or_else(unsupported)?;
        let size = size(&shape, ty).map_err(|reason| bad_tensor(file, &name, reason))?;
        let overflow = || bad_tensor(file, &name, format!("offset {offset} is outside any file"));
        let end = offset.checked_add(size).ok_or_else(overflow)?;
        // The product fits, so each size does.
        let shape = shape.iter().rev().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
        Ok(Self { name, shape, ty, bytes: offset..end })
    }

    fn place(&mut self, file: &Path, start: u64, alignment: u64, length: u64) -> Result<(), Error> {
        let offset = self.bytes.start;
        if !offset.is_multiple_of(alignment) {
            let reason = format!("offset {offset} is not a multiple of the alignment {alignment}");
            return Err(bad_tensor(file, &self.name, reason));
        }
        let end = start.checked_add(self.bytes.end).filter(|&end| end <= length);
        let Some(end) = end else {
            let reason = format!(
                "its data ends {} bytes after the tensor data begins at {start}, but the file has \
                 {length} bytes: it is cut short; download it again",
                self.bytes.end
            );
            return Err(bad_tensor(file, &self.name, reason));
        };
        self.bytes = start + offset..end;
        Ok(())
    }
}

/// The bytes of a tensor with `dimensions` innermost first, or what is wrong with them.
fn size(dimensions: &[u64], ty: WeightType) -> Result<u64, String> {
    if dimensions.contains(&0) {
        return Err(format!("the shape {dimensions:?} has a zero"));
    }
    let row = dimensions[0];
    if !row.is_multiple_of(ty.block_elements() as u64) {
        let block = ty.block_elements();
        return Err(format!("a row of {row} is not whole blocks of {block}, as {ty} needs"));
    }
    let product = dimensions.iter().try_fold(1_u64, |product, &n| product.checked_mul(n));
    product
        .and_then(|elements| ty.bytes(elements))
        .filter(|&bytes| usize::try_from(bytes).is_ok())
        .ok_or_else(|| format!("the size of the shape {dimensions:?} overflows"))
}

fn bad_tensor(file: &Path, name: &str, reason: impl Into<String>) -> Error {
    Error::bad(file, format!("tensor `{}`", name.escape_debug()), reason)
}
