//! Memory that the tasks of one operation write, each its own part.

use std::marker::PhantomData;
use std::ops::Range;

/// Columns of a matrix `[rows, stride]` that several tasks write, each its own.
pub struct Columns<'a> {
    start: *mut f32,
    len: usize,
    stride: usize,
    columns: Range<usize>,
    _matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: `put` is unsafe and asks its callers to write disjoint elements.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Columns `columns` of `matrix`.
    pub fn new(matrix: &'a mut [f32], stride: usize, columns: Range<usize>) -> Self {
        assert!(columns.end <= stride, "columns {columns:?} of a matrix {stride} wide");
        let (start, len) = (matrix.as_mut_ptr(), matrix.len());
        Self { start, len, stride, columns, _matrix: PhantomData }
    }

    /// Writes, or adds, `values` to the columns from `column` of these, in row `row`.
    ///
    /// # Safety
    /// No other task touches the elements at the same time.
    ///
    /// # Panics
    /// When an element is outside.
    pub unsafe fn put(&self, row: usize, column: usize, values: &[f32], add: bool) {
        assert!(column + values.len() <= self.columns.len());
        let at = row * self.stride + self.columns.start + column;
        assert!(at + values.len() <= self.len, "row {row} of {}", self.len / self.stride);
        // SAFETY: the elements are within the matrix, which is borrowed for as long as these
        // columns, and the caller is alone with them.
        let out = unsafe { std::slice::from_raw_parts_mut(self.start.add(at), values.len()) };
        if add {
            out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        } else {
            out.copy_from_slice(values);
        }
    }
}

/// Equal parts of a slice that several tasks write, each its own.
pub struct Parts<'a, T = f32> {
    start: *mut T,
    size: usize,
    count: usize,
    _slice: PhantomData<&'a mut [T]>,
}

// SAFETY: `part` is unsafe and asks its callers to take each part once at a time.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// `slice` in parts of `size`; a rest that is shorter belongs to nobody.
    pub fn new(slice: &'a mut [T], size: usize) -> Self {
        let count = slice.len() / size;
        Self { start: slice.as_mut_ptr(), size, count, _slice: PhantomData }
    }

    /// Part `at`.
    ///
    /// # Safety
    /// Nobody else holds the part at the same time.
    ///
    /// # Panics
    /// When there is no such part.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, at: usize) -> &mut [T] {
        // SAFETY: as the caller says.
        unsafe { self.run(at, 1) }
    }

    /// `count` parts from `first`, side by side.
    ///
    /// # Safety
    /// Nobody else holds one of the parts at the same time.
    ///
    /// # Panics
    /// When there are no such parts.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn run(&self, first: usize, count: usize) -> &mut [T] {
        assert!(first + count <= self.count, "parts {first} + {count} of {}", self.count);
        let (start, size) = (first * self.size, count * self.size);
        // SAFETY: the parts are within the slice, which is borrowed for as long as these parts,
        // and the caller is alone with them.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), size) }
    }
}
