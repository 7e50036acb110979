//! Folds what a poll brought into a new snapshot.

use std::sync::Arc;

use crate::{NodeReport, Snapshot, Tick};

/// The end of one poll.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The node answered.
    Report(NodeReport),
    /// It did not; `why` is for the operator.
    Missed {
        /// What went wrong, in words.
        why: String,
    },
}

/// The snapshot after `observation` of the node called `name`, which was asked at `now`.
///
/// A report is proof of life: it clears every missed poll at once, so a node is back in service
/// with its first answer. Leaving service takes [`crate::MISSED_LIMIT`] misses in a row. A report
/// without a discovery keeps the one before it. A node that is not configured changes nothing.
#[must_use]
pub fn observe(snapshot: &Snapshot, name: &str, observation: Observation, now: Tick) -> Snapshot {
    let mut next = snapshot.clone();
    let named = |node: &&mut Arc<crate::Node>| node.name == name && !node.is_removed;
    let Some(slot) = next.nodes.iter_mut().find(named) else {
        return next;
    };
    let mut node = (**slot).clone();
    match observation {
        Observation::Report(mut report) => {
            let before = node.report.take().and_then(|old| old.discovery.clone());
            report.discovery = report.discovery.or(before);
            node.report = Some(Arc::new(report));
            node.seen = Some(now);
            node.missed = 0;
            node.fault = None;
        }
        Observation::Missed { why } => {
            node.missed = node.missed.saturating_add(1);
            node.fault = Some(why);
        }
    }
    *slot = Arc::new(node);
    next
}
