//! A tensor as it lies in its file.

use std::sync::Arc;

use kernels::quant::{WeightType, dequantize};
use kernels::{Weight, WeightBytes};

use super::Mapped;

/// Bytes from which on a matrix stays in its file.
const MAPPED_BYTES: usize = 1 << 20;

/// One tensor of an open file.
///
/// Shapes are outermost first for every file format, as mathematics writes a matrix: a linear
/// layer is `[outputs, inputs]`, an embedding `[vocabulary, hidden]`. (GGUF records them innermost
/// first; its reader turns them round.) Rows are contiguous and whole blocks.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// Sizes, outermost first; never empty, never zero.
    pub shape: Vec<usize>,
    /// How the elements are stored.
    pub ty: WeightType,
    /// All rows, one after the other.
    pub bytes: &'a [u8],
    /// The file that `bytes` is a part of.
    pub(crate) file: &'a Mapped,
}

impl<'a> TensorView<'a> {
    /// The number of elements. It was checked not to overflow when the file was opened.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The length of a row: the innermost size.
    pub fn row_elements(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of rows: the product of all sizes but the innermost.
    pub fn rows(&self) -> usize {
        self.elements() / self.row_elements()
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_elements() / self.ty.block_elements() * self.ty.block_bytes()
    }

    /// The blocks of one row.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes()..][..self.row_bytes()]
    }

    /// The same tensor as a matrix. A large one keeps its file mapped and is not copied; when the
    /// last part of it is dropped, its pages go back to the system. A small one is copied: it would
    /// keep the pages of its neighbours in memory, and the file of a model that needs no other
    /// part of it.
    pub fn weight(&self) -> Weight {
        let bytes = if self.bytes.len() < MAPPED_BYTES {
            self.bytes.to_vec().into()
        } else {
            let start = self.bytes.as_ptr() as usize - self.file.as_ptr() as usize;
            let region = self.file.region(start..start + self.bytes.len());
            WeightBytes::new(Arc::new(region))
        };
        Weight::new(self.ty, self.rows(), self.row_elements(), bytes)
    }

    /// All elements as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.elements()];
        dequantize(self.ty, self.bytes, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn view(file: &Mapped, rows: usize) -> TensorView<'_> {
        let (shape, bytes) = (vec![rows, 256], &file[..rows * 256 * 4]);
        TensorView { name: "w", shape, ty: WeightType::F32, bytes, file }
    }

    /// What is given back is read from the file again.
    #[test]
    fn large_matrices_stay_in_their_file_and_small_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w");
        let values: Vec<u8> = (0..2 * MAPPED_BYTES).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &values).unwrap();
        let file = Mapped::open(Path::new(&path)).unwrap();
        let (large, small) = (view(&file, 1024).weight(), view(&file, 1023).weight());
        let part = large.row_range(1..2);
        assert_eq!(part.row(0).as_ptr(), file[1024..].as_ptr(), "it is mapped");
        assert_ne!(small.row(0).as_ptr(), file.as_ptr(), "it is copied");
        drop((large, part));
        assert!(file[..] == values[..], "pages that were given back have other bytes");
    }
}
