//! The invariants, judged by what really is.

use std::collections::BTreeMap;
use std::fmt;

use control::ModelStatus;
use fleet::{Catalogue, Snapshot};

use crate::world::{Resident, SimNode, node_name};

/// A rule that was broken, and how.
#[derive(Debug)]
pub(crate) struct Broken {
    rule: Rule,
    story: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A load is never ordered where there is no room for what the model is said to take.
    Room,
    /// A model is never evicted while it is used.
    Busy,
    /// A model is never evicted from a node that it is pinned on.
    Pinned,
    /// A node is told once to load a model.
    OneLoad,
    /// Every request that waits hears something by its deadline.
    Ends,
    /// With steady demand and healthy nodes nothing is loaded or unloaded any more.
    Rest,
    /// Nothing is sent to a node that has missed its polls.
    Alive,
}

/// Three polls at a second each, the last one's time-out, and a report that was on its way.
const SILENCE_MS: u64 = 5_000;

impl Broken {
    pub(crate) fn new(rule: Rule, story: impl Into<String>) -> Self {
        Self { rule, story: story.into() }
    }

    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.story)
    }
}

/// A load is ordered. Requirements 60 and 118.
pub(crate) fn load(
    snapshot: &Snapshot,
    nodes: &[SimNode],
    catalogue: &Catalogue,
    place: usize,
    model: &str,
    devices: &[u32],
) -> Result<(), Broken> {
    let (node, profile) = (&nodes[place], &catalogue.models[model]);
    if !node.answers() {
        // Nobody could know; the order will fail.
        return Ok(());
    }
    if node.models.contains_key(model) {
        return Err(Broken::new(Rule::OneLoad, format!("{model} is on node {place} already")));
    }
    let ranks = profile.ranks();
    let each = profile.vram_mb.expect("the catalogue says it").div_ceil(ranks as u64);
    for device in devices {
        // That a model is larger than it was said to be is known once a report shows it.
        let known = |(id, other): (&String, &Resident)| {
            let shown = snapshot.nodes[place].model(id).map(|model| model.status);
            if shown == Some(ModelStatus::Ready) { other.mb_each } else { other.said_each }
        };
        let holders = node.models.iter().filter(|(_, other)| other.devices.contains(device));
        let used: u64 = holders.map(known).sum();
        let free = node.device_mb[*device as usize].saturating_sub(used);
        if free < each {
            let story = format!("{model} takes {each} of {free} MiB on node {place}.{device}");
            return Err(Broken::new(Rule::Room, story));
        }
    }
    Ok(())
}

/// An unload is ordered.
pub(crate) fn unload(
    snapshot: &Snapshot,
    nodes: &[SimNode],
    catalogue: &Catalogue,
    place: usize,
    model: &str,
) -> Result<(), Broken> {
    if catalogue.models[model].is_pinned_on(&node_name(place)) {
        return Err(Broken::new(Rule::Pinned, format!("{model} is pinned on node {place}")));
    }
    let open = nodes[place].models.get(model).map_or(0, |model| model.open);
    let said = snapshot.nodes[place].gauges(model).map_or(0, |gauges| gauges.running);
    // What others do is known as of the last report; what goes through here is known at once.
    if open > 0 || (said > 0 && foreign(nodes, place, model) > 0) {
        let story = format!("{model} has {open} requests of ours on node {place}, {said} reported");
        return Err(Broken::new(Rule::Busy, story));
    }
    Ok(())
}

fn foreign(nodes: &[SimNode], place: usize, model: &str) -> u32 {
    nodes[place].models.get(model).map_or(0, |model| model.foreign)
}

/// A request is sent to a node. Requirement 68.
pub(crate) fn forward(nodes: &[SimNode], place: usize, now: u64) -> Result<(), Broken> {
    let silent_ms = now - nodes[place].answered;
    if silent_ms <= SILENCE_MS {
        return Ok(());
    }
    let story = format!("node {place} has answered no poll for {silent_ms} ms");
    Err(Broken::new(Rule::Alive, story))
}

/// Nobody waits past its deadline. `waiting` maps requests to their deadlines.
pub(crate) fn ends(waiting: &BTreeMap<u64, u64>, now: u64, slack_ms: u64) -> Result<(), Broken> {
    match waiting.iter().find(|(_, deadline)| **deadline + slack_ms < now) {
        None => Ok(()),
        Some((ask, deadline)) => {
            let story = format!("request {ask} waits at {now} ms; it should end by {deadline} ms");
            Err(Broken::new(Rule::Ends, story))
        }
    }
}
