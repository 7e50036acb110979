//! What speaks for a replica and against it.
//!
//! The load is `max(running + waiting, in_flight)`: the node's own count is as old as its last
//! poll, the gateway's count is exact but knows only its own requests. Taking the larger one
//! spreads a burst that falls between two polls.

use serde::Serialize;

use crate::{Ask, Node, Tick};

/// One request that waits.
const REQUEST: i64 = 1000;
/// So many bytes of a prompt that a node has computed already are worth one request less.
const BYTES_A_REQUEST: u64 = 2048;
/// The most that a known prompt is worth.
const MOST_AFFINITY: i64 = 8 * REQUEST;
/// A node whose blocks or state slots are all taken makes newcomers wait as if behind so many.
const FULL: i64 = 4 * REQUEST;
/// Free memory is of no interest above this share of it, in percent.
const ROOMY_PCT: i64 = 25;
/// A stream that begins so much later is worth one request more. The difference counts and not the
/// ratio: of two nodes that answer at once none is slow.
const LATER_A_REQUEST_MS: i64 = 50;
/// The most that slowness counts.
const MOST_SLOWNESS: i64 = 2 * REQUEST;

/// A replica's score, part by part, in thousandths of a request that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Requests there.
    pub load: i64,
    /// Blocks and state slots that run out.
    pub pressure: i64,
    /// What it computed of this prompt before; counts for it.
    pub affinity: i64,
    /// How much later than the fastest replica its streams begin.
    pub slowness: i64,
}

/// The beginning of a prompt, up to and with one of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// As nodes report it in [`control::ModelReport::prefix_digests`].
    pub digest: u64,
    /// Bytes of all messages so far.
    pub bytes: u64,
}

impl Score {
    /// Less is better.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.load + self.pressure + self.slowness - self.affinity
    }
}

pub(crate) fn score(
    place: usize,
    node: &Node,
    ask: &Ask<'_>,
    fastest_ms: Option<u32>,
    now: Tick,
) -> Score {
    let own = ask.in_flight.get(place).copied().unwrap_or(0);
    let gauges = node.gauges(ask.model);
    let reported = gauges.map_or(0, |gauges| gauges.running.saturating_add(gauges.waiting));
    let pressure = gauges.map_or(0, |gauges| {
        let blocks = lack(gauges.kv_blocks_free, gauges.kv_blocks_total);
        blocks.max(lack(gauges.state_slots_free, gauges.state_slots_total))
    });
    Score {
        load: i64::from(reported.max(own)) * REQUEST,
        pressure,
        affinity: affinity(known_bytes(place, node, ask, now)),
        slowness: slowness(ask.desk.latency_ms(place, ask.model), fastest_ms),
    }
}

/// Bytes of the prompt that the node has computed, by its own word or because they were sent there
/// a moment ago.
pub(crate) fn known_bytes(place: usize, node: &Node, ask: &Ask<'_>, now: Tick) -> u64 {
    let Some(model) = node.model(ask.model) else { return 0 };
    let sent = ask.desk.prompts(place, ask.model);
    let is_known = |link: &&Link| {
        model.prefix_digests.contains(&link.digest)
            || sent.is_some_and(|sent| sent.has(link.digest, now))
    };
    ask.chain.iter().rev().find(is_known).map_or(0, |link| link.bytes)
}

fn affinity(bytes: u64) -> i64 {
    let worth = bytes.saturating_mul(REQUEST as u64) / BYTES_A_REQUEST;
    i64::try_from(worth).unwrap_or(i64::MAX).min(MOST_AFFINITY)
}

/// Nothing as long as a quarter is free, then more and more.
fn lack(free: u32, total: u32) -> i64 {
    if total == 0 {
        return 0;
    }
    let free_pct = i64::from(free) * 100 / i64::from(total);
    (ROOMY_PCT - free_pct).max(0) * FULL / ROOMY_PCT
}

fn slowness(own: Option<u32>, fastest: Option<u32>) -> i64 {
    let (Some(own), Some(fastest)) = (own, fastest) else { return 0 };
    let later = i64::from(own.saturating_sub(fastest));
    (later * REQUEST / LATER_A_REQUEST_MS).min(MOST_SLOWNESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_bounds() {
        assert_eq!([lack(0, 0), lack(50, 100), lack(25, 100)], [0; 3]);
        assert_eq!(lack(0, 100), FULL);
        assert!(lack(10, 100) > lack(20, 100));
        assert_eq!(affinity(0), 0);
        assert_eq!(affinity(2048), REQUEST);
        assert_eq!(affinity(u64::MAX), MOST_AFFINITY);
        assert_eq!([slowness(Some(100), Some(100)), slowness(Some(1), Some(2))], [0; 2]);
        assert_eq!(slowness(Some(125), Some(100)), REQUEST / 2);
        assert_eq!(slowness(Some(9000), Some(1)), MOST_SLOWNESS);
        assert_eq!(slowness(None, Some(1)), 0);
    }
}
