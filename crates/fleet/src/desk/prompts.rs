//! What was sent where of late. A node's report tells of a prompt once that was computed and the
//! node was asked again; until then the gateway knows it from what it did itself.

use std::collections::BTreeMap;

use crate::{Link, Tick};

/// Reports tell of a prompt by then, or the node has forgotten it.
const REMEMBERED_MS: u64 = 30_000;
/// Beginnings that are remembered of one model on one node.
const MOST: usize = 1024;
/// Of one prompt, the longest so many.
const OF_ONE: usize = 256;

/// The beginnings of prompts, and when they were sent last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompts {
    sent: BTreeMap<u64, Tick>,
}

impl Prompts {
    pub(super) fn note(&mut self, chain: &[Link], now: Tick) {
        self.sent.extend(chain.iter().rev().take(OF_ONE).map(|link| (link.digest, now)));
        if self.sent.len() > MOST {
            self.sent.retain(|_, at| now.since_ms(*at) < REMEMBERED_MS);
        }
        // Whoever sends more than that within that time is remembered by the latest alone.
        if self.sent.len() > MOST {
            let mut times: Vec<Tick> = self.sent.values().copied().collect();
            times.sort_unstable();
            let newer = times[times.len() - MOST / 2];
            self.sent.retain(|_, at| *at > newer || *at == now);
        }
    }

    pub(crate) fn has(&self, digest: u64, now: Tick) -> bool {
        self.sent.get(&digest).is_some_and(|at| now.since_ms(*at) < REMEMBERED_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(digest: u64) -> Link {
        Link { digest, bytes: 1 }
    }

    #[test]
    fn what_was_sent_is_remembered_for_a_while_and_within_bounds() {
        let mut prompts = Prompts::default();
        prompts.note(&[link(1), link(2)], Tick(5));
        assert!(prompts.has(1, Tick(6)) && prompts.has(2, Tick(6)) && !prompts.has(3, Tick(6)));
        assert!(!prompts.has(1, Tick(5 + REMEMBERED_MS)));
        for n in 0..10 * MOST as u64 {
            prompts.note(&[link(n)], Tick(n / 8));
            assert!(prompts.sent.len() <= MOST + OF_ONE && prompts.has(n, Tick(n / 8)));
        }
        let long: Vec<Link> = (0..5_000).map(link).collect();
        prompts.note(&long, Tick(2_000));
        assert!(prompts.has(4_999, Tick(2_000)) && !prompts.has(4_000, Tick(2_000)));
        // All at one moment, over and over.
        for n in 0..100 {
            prompts.note(&long[n * 10..n * 10 + 256], Tick(2_000));
        }
        assert!(prompts.sent.len() <= 2 * MOST, "{}", prompts.sent.len());
    }
}
