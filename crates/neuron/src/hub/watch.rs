//! What a pull tells while it works.

use std::time::Duration;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// What will be fetched, before it is.
    Planned {
        /// Files that are not there yet.
        files: usize,
        /// Their bytes, less what partial files hold.
        bytes: u64,
    },
    /// A file is being fetched.
    Started {
        /// Its path in the repository.
        path: &'a str,
        /// All of its bytes.
        size: u64,
        /// The byte at which it goes on.
        from: u64,
    },
    /// So many bytes more of it are on the disk.
    Advanced(u64),
    /// It has its final name.
    Finished {
        /// Its path in the repository.
        path: &'a str,
    },
    /// A try failed and another one follows.
    Waiting {
        /// What was being fetched, and why it failed.
        why: &'a str,
        /// Until the next try.
        delay: Duration,
    },
    /// Something that the caller should know.
    Note(&'a str),
}

/// Who is told.
pub(super) type Watch<'a> = dyn FnMut(Event<'_>) + 'a;
