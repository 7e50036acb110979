//! Memory that is there before it is needed.
//!
//! The system promises memory and finds it when it is first touched. A load touches everything, so
//! that it either has its memory or fails, and no step waits for a page.
//!
//! Much of it lies in large pages. A step reads all weights once: with pages of 4 KiB that is a
//! look-up in memory every 64 lines, with those of 2 MiB hardly any.

use std::hint::black_box;

/// Bytes of the smallest page. Where pages are larger, some are touched more than once.
const PAGE: usize = 4096;

/// Below this, memory holds too few whole large pages.
const WORTH: usize = 4 << 20;

/// So many zeros, which really are in memory.
pub(crate) fn zeros<T: Copy + Default>(count: usize) -> Vec<T> {
    let mut zeros = large(count);
    zeros.resize(count, T::default());
    for page in zeros.chunks_mut(PAGE / size_of::<T>()) {
        // A zero written over a zero would be left out if the compiler saw it.
        *black_box(&mut page[0]) = T::default();
    }
    zeros
}

/// A vector with room for `len` elements, none of which is there yet, in large pages where the
/// system has them. It is to be filled at once: pages are chosen when they are first written.
pub(crate) fn large<T>(len: usize) -> Vec<T> {
    let room = Vec::with_capacity(len);
    #[cfg(target_os = "linux")]
    advise(&room);
    room
}

#[cfg(target_os = "linux")]
fn advise<T>(room: &Vec<T>) {
    use rustix::mm::{Advice, madvise};
    use rustix::param::page_size;

    let (start, bytes) = (room.as_ptr().addr(), room.capacity() * size_of::<T>());
    if bytes < WORTH {
        return;
    }
    let lead = start.next_multiple_of(page_size()) - start;
    let whole = (bytes - lead) / page_size() * page_size();
    // SAFETY: the advice moves no byte, and the range lies within the allocation. A system that
    // does not take it changes nothing.
    let _ = unsafe {
        madvise(room.as_ptr().byte_add(lead).cast_mut().cast(), whole, Advice::LinuxHugepage)
    };
}

/// Reads mapped bytes in from their file.
pub(crate) fn read_in(bytes: &[u8]) {
    for page in bytes.chunks(PAGE) {
        black_box(page[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_is_memory() {
        for len in [0, 1, WORTH / 8 - 1, WORTH / 8 + 12_345] {
            let mut room = large::<u64>(len);
            assert!(room.capacity() >= len);
            room.extend(0..len as u64);
            assert!(room.iter().enumerate().all(|(at, value)| at as u64 == *value));
        }
    }
}
