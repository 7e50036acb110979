//! A bucket that a minute fills: what a client may do now, after what it did.

use crate::Tick;

const MINUTE_MS: i64 = 60_000;

/// Counts in sixty-thousandths, so that a millisecond adds exactly `rate` of them.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: u32,
    /// Below zero after a request that used more than it was charged.
    level: i64,
    filled: Tick,
}

/// A rate as clients are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What a minute gives.
    pub limit: u32,
    /// What is left now.
    pub remaining: u32,
    /// When all of it is there again.
    pub full_after_ms: u64,
}

impl Bucket {
    pub(super) fn full(rate: u32, now: Tick) -> Bucket {
        Bucket { rate, level: i64::from(rate) * MINUTE_MS, filled: now }
    }

    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// The same use under another rate.
    pub(super) fn resized(mut self, rate: u32, now: Tick) -> Bucket {
        self.fill(now);
        let used = self.most() - self.level;
        self.rate = rate;
        self.level = self.most() - used;
        self
    }

    fn most(&self) -> i64 {
        i64::from(self.rate) * MINUTE_MS
    }

    fn level_at(&self, now: Tick) -> i64 {
        let passed = i64::try_from(now.since_ms(self.filled)).unwrap_or(i64::MAX);
        let gained = i64::from(self.rate).saturating_mul(passed);
        self.level.saturating_add(gained).min(self.most())
    }

    fn fill(&mut self, now: Tick) {
        self.level = self.level_at(now);
        self.filled = now;
    }

    /// When `count` are there, if they are not now.
    pub(super) fn lacks(&self, count: u64, now: Tick) -> Option<u64> {
        let wanted = units(count);
        let missing = wanted - self.level_at(now);
        (missing > 0).then(|| missing.unsigned_abs().div_ceil(u64::from(self.rate.max(1))))
    }

    /// Takes `count`, or says when it could.
    pub(super) fn take(&mut self, count: u64, now: Tick) -> Option<u64> {
        self.fill(now);
        let short = self.lacks(count, now);
        if short.is_none() {
            self.level -= units(count);
        }
        short
    }

    /// Replaces what was charged with what was used.
    pub(super) fn settle(&mut self, charged: u64, used: u64, now: Tick) {
        self.fill(now);
        self.level = (self.level + units(charged)).saturating_sub(units(used)).min(self.most());
    }

    pub(super) fn standing(&self, now: Tick) -> Rate {
        let level = self.level_at(now);
        let remaining = u32::try_from(level.max(0) / MINUTE_MS).unwrap_or(u32::MAX);
        let missing = (self.most() - level).unsigned_abs();
        let full_after_ms = missing.div_ceil(u64::from(self.rate.max(1)));
        Rate { limit: self.rate, remaining, full_after_ms }
    }
}

/// More than any bucket holds is as good as infinite, and must not overflow.
fn units(count: u64) -> i64 {
    i64::try_from(count)
        .map_or(i64::MAX / 4, |count| count.min(i64::MAX / 4 / MINUTE_MS) * MINUTE_MS)
}
