//! Nodes that fail requests though they answer polls, and when they are trusted again.
//!
//! A node that failed a request is left alone for a while, which doubles with each failure in a
//! row and is different for every gateway and node, so that nobody comes back together. It is
//! asked again when that time is over and it has answered a poll that began after the failure.

use std::collections::BTreeMap;

use crate::{Node, Tick};

/// The first pause.
const PAUSE_MS: u64 = 1_000;
/// The longest.
const LONGEST_PAUSE_MS: u64 = 30_000;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Outliers {
    failing: BTreeMap<usize, Failing>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    in_a_row: u32,
    at: Tick,
    until: Tick,
}

impl Outliers {
    /// The node at `place` failed a request: no connection, no answer, or a broken one. `draw` is
    /// any number; the pause is up to a half longer by it.
    pub fn failed(&mut self, place: usize, draw: u64, now: Tick) {
        let failing = self.failing.entry(place).or_insert(Failing {
            in_a_row: 0,
            at: now,
            until: Tick::default(),
        });
        // Requests that fail together are one failure.
        if now < failing.until {
            failing.at = now;
            return;
        }
        let pause = PAUSE_MS.saturating_mul(1 << failing.in_a_row.min(16)).min(LONGEST_PAUSE_MS);
        let jitter = draw % (pause / 2);
        let until = Tick(now.0 + pause + jitter);
        *failing = Failing { in_a_row: failing.in_a_row + 1, at: now, until };
    }

    /// The node at `place` answered a request.
    pub fn answered(&mut self, place: usize) {
        if !self.failing.is_empty() {
            self.failing.remove(&place);
        }
    }

    /// Whether nothing failed of late.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.failing.is_empty()
    }

    /// Whether the node is better left alone at `now`.
    #[must_use]
    pub fn suspects(&self, place: usize, node: &Node, now: Tick) -> bool {
        let Some(failing) = self.failing.get(&place) else { return false };
        now < failing.until || node.seen.is_none_or(|seen| seen <= failing.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;

    fn seen_at(ms: u64) -> Node {
        let snapshot = Snapshot::unseen([("a".to_owned(), "http://a".to_owned())]);
        Node { seen: Some(Tick(ms)), ..(*snapshot.nodes[0]).clone() }
    }

    #[test]
    fn a_failure_is_forgiven_after_a_pause_and_a_poll() {
        let mut outliers = Outliers::default();
        assert!(!outliers.suspects(0, &seen_at(1), Tick(5)));
        outliers.failed(0, 0, Tick(100));
        assert!(outliers.suspects(0, &seen_at(200), Tick(1_099)));
        assert!(!outliers.suspects(0, &seen_at(200), Tick(1_100)));
        assert!(outliers.suspects(0, &seen_at(99), Tick(9_000)), "no poll since");
        assert!(!outliers.suspects(1, &seen_at(99), Tick(9_000)), "another node");
    }

    #[test]
    fn pauses_grow_and_differ_and_an_answer_ends_them() {
        let mut outliers = Outliers::default();
        let ends = |outliers: &Outliers, from: u64| {
            (from..from + 60_000).find(|at| !outliers.suspects(0, &seen_at(*at), Tick(*at)))
        };
        outliers.failed(0, 0, Tick(0));
        outliers.failed(0, 0, Tick(10));
        assert_eq!(ends(&outliers, 11), Some(1_000), "two at once are one");
        outliers.failed(0, 300, Tick(2_000));
        assert_eq!(ends(&outliers, 2_001), Some(4_300));
        for at in 1..10 {
            outliers.failed(0, 0, Tick(at * 100_000));
        }
        assert_eq!(ends(&outliers, 900_001), Some(930_000));
        outliers.answered(0);
        assert!(outliers.is_empty());
    }
}
