//! Bodies that are kept after they were sent, for a second try or a continuation, are bounded in
//! bytes over all requests (requirement 133).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes are kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: AtomicUsize,
}

/// The right to keep a body, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Keep {
    kept: Arc<Kept>,
    bytes: usize,
}

impl Kept {
    /// Room for so many bytes under `limit`; none means that the request has one try.
    pub(crate) fn take(self: &Arc<Kept>, bytes: usize, limit: usize) -> Option<Keep> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Made at once, so that a refusal gives back what it has added.
        let keep = Keep { kept: Arc::clone(self), bytes };
        (before.saturating_add(bytes) <= limit).then_some(keep)
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        self.kept.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Requirement 133
    #[test]
    fn room_is_bounded_and_comes_back() {
        let kept = Arc::<Kept>::default();
        let first = kept.take(60, 100).expect("there is room");
        assert!(kept.take(50, 100).is_none());
        drop(first);
        assert!(kept.take(100, 100).is_some());
    }
}
