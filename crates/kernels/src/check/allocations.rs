//! Counts allocations, so that a test can show that a step takes no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator with a counter; a test's binary makes it the global one.
#[derive(Debug, Default)]
pub struct Counting {
    taken: AtomicUsize,
}

impl Counting {
    /// With nothing counted.
    pub const fn new() -> Self {
        Self { taken: AtomicUsize::new(0) }
    }

    /// Allocations so far, of all threads; one that grows counts again.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

// SAFETY: everything is the system's own, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.taken.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.taken.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.taken.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(at, layout) }
    }
}
