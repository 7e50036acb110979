//! Memory that is there before it is needed.
//!
//! The system promises memory and finds it when it is first touched. A load touches everything, so
//! that it either has its memory or fails, and no step waits for a page.

use std::hint::black_box;

/// Bytes of the smallest page. Where pages are larger, some are touched more than once.
const PAGE: usize = 4096;

/// So many zeros, which really are in memory.
pub(crate) fn zeros(count: usize) -> Vec<f32> {
    let mut zeros = vec![0.0; count];
    for page in zeros.chunks_mut(PAGE / size_of::<f32>()) {
        // A zero written over a zero would be left out if the compiler saw it.
        *black_box(&mut page[0]) = 0.0;
    }
    zeros
}

/// Reads mapped bytes in from their file.
pub(crate) fn read_in(bytes: &[u8]) {
    for page in bytes.chunks(PAGE) {
        black_box(page[0]);
    }
}
