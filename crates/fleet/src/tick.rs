//! Time as policy sees it: a number that the caller passes in.

use serde::Serialize;

/// Milliseconds since a moment that the caller chose; it never runs backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Tick(pub u64);

impl Tick {
    /// Milliseconds from `earlier` to `self`; 0 when `earlier` lies later.
    #[must_use]
    pub fn since_ms(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
