//! A weight matrix as a file holds it: bytes that are mapped, not copied.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::quant::WeightType;

/// A range of bytes that keeps whatever holds them alive: a mapped file or an owned buffer.
#[derive(Clone)]
pub struct WeightBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl WeightBytes {
    /// All bytes of `owner`.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        let range = 0..(*owner).as_ref().len();
        Self { owner, range }
    }

    /// A part, counted from this part's start.
    ///
    /// # Panics
    /// When `range` is not within these bytes.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len(), "slice out of bounds");
        let start = self.range.start + range.start;
        Self { owner: self.owner.clone(), range: start..start + range.len() }
    }
}

impl From<Vec<u8>> for WeightBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Arc::new(bytes))
    }
}

impl Deref for WeightBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for WeightBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightBytes({} bytes)", self.range.len())
    }
}

/// A matrix `[rows, cols]`; each row is a whole number of blocks, one row after the other.
///
/// As a linear layer it maps `cols` inputs to `rows` outputs.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The blocks' format.
    pub ty: WeightType,
    /// Outputs.
    pub rows: usize,
    /// Inputs; a multiple of the format's block.
    pub cols: usize,
    /// `rows * row_bytes()` bytes.
    pub bytes: WeightBytes,
}

impl Weight {
    /// Checks that the bytes are as many as the shape needs.
    ///
    /// # Panics
    /// When they are not: readers check files before they make weights.
    pub fn new(ty: WeightType, rows: usize, cols: usize, bytes: WeightBytes) -> Self {
        assert_eq!(cols % ty.block_elements(), 0, "a row of {cols} cuts a block of {ty}");
        let weight = Self { ty, rows, cols, bytes };
        assert_eq!(weight.bytes.len(), rows * weight.row_bytes(), "bytes of {rows}x{cols} {ty}");
        weight
    }

    /// A matrix of f32 values, row after row.
    pub fn from_f32(rows: usize, cols: usize, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(WeightType::F32, rows, cols, bytes.into())
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.cols / self.ty.block_elements() * self.ty.block_bytes()
    }

    /// The blocks of row `row`.
    pub fn row(&self, row: usize) -> &[u8] {
        let size = self.row_bytes();
        &self.bytes[row * size..(row + 1) * size]
    }

    /// Rows `range` of this matrix, sharing its bytes.
    pub fn row_range(&self, range: Range<usize>) -> Self {
        let size = self.row_bytes();
        let bytes = self.bytes.slice(range.start * size..range.end * size);
        Self::new(self.ty, range.len(), self.cols, bytes)
    }

    /// Columns `range` of this matrix, copied; `None` when the range cuts a block.
    pub fn col_range(&self, range: Range<usize>) -> Option<Self> {
        let block = self.ty.block_elements();
        if !range.start.is_multiple_of(block) || !range.end.is_multiple_of(block) {
            return None;
        }
        let size = self.ty.block_bytes();
        let cut = range.start / block * size..range.end / block * size;
        let bytes: Vec<u8> =
            (0..self.rows).flat_map(|row| self.row(row)[cut.clone()].iter().copied()).collect();
        Some(Self::new(self.ty, self.rows, range.len(), bytes.into()))
    }

    /// All values, `[rows, cols]`.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.cols];
        crate::quant::dequantize(self.ty, &self.bytes, &mut values);
        values
    }
}
