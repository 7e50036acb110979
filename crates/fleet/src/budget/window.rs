//! What was spent within a rolling window, in slices of it.

use std::collections::BTreeMap;

use crate::Tick;

/// A window moves in so many steps. What was spent counts until its whole slice has left the
/// window, so that no more than the budget is ever spent within one.
const SLICES: u64 = 60;

/// Tokens by slice of the window; a balance has one slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    slices: BTreeMap<u64, u64>,
}

/// The slice in which something spent `now` counts.
#[must_use]
pub fn slice_of(window_ms: Option<u64>, now: Tick) -> u64 {
    window_ms.map_or(0, |window_ms| now.0 / slice_ms(window_ms))
}

fn slice_ms(window_ms: u64) -> u64 {
    window_ms.div_ceil(SLICES).max(1)
}

impl Spent {
    /// The slices as they were written down.
    pub fn from_slices(slices: impl IntoIterator<Item = (u64, u64)>) -> Spent {
        Spent { slices: slices.into_iter().collect() }
    }

    /// The oldest slice that still counts.
    #[must_use]
    pub fn oldest(window_ms: Option<u64>, now: Tick) -> u64 {
        slice_of(window_ms, now).saturating_sub(SLICES)
    }

    /// Adds `tokens` now, and forgets what has left the window.
    pub fn add(&mut self, window_ms: Option<u64>, tokens: u64, now: Tick) {
        self.slices = self.slices.split_off(&Spent::oldest(window_ms, now));
        let slice = self.slices.entry(slice_of(window_ms, now)).or_default();
        *slice = slice.saturating_add(tokens);
    }

    /// What counts now.
    #[must_use]
    pub fn within(&self, window_ms: Option<u64>, now: Tick) -> u64 {
        let counting = self.slices.range(Spent::oldest(window_ms, now)..);
        counting.fold(0, |sum, (_, tokens)| sum.saturating_add(*tokens))
    }

    /// When the oldest slice stops counting; never for a balance.
    #[must_use]
    pub fn frees_after_ms(&self, window_ms: Option<u64>, now: Tick) -> Option<u64> {
        let length = slice_ms(window_ms?);
        let counting = self.slices.range(Spent::oldest(window_ms, now)..);
        let (oldest, _) = counting.into_iter().find(|(_, tokens)| **tokens > 0)?;
        Some(Tick((oldest + SLICES + 1) * length).since_ms(now).max(1))
    }
}
