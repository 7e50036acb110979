//! Where a request goes.
//!
//! Every replica that could answer has a score, in thousandths of a request that waits; the least
//! wins. Ties go to the node with fewer of this gateway's own requests, then to the order of the
//! configuration or of the draw. Of more than [`ALL_COMPARED`] replicas only two are drawn and
//! compared, with the one that knows most of the prompt as a third: several gateways that all saw
//! the same reports would otherwise all pick the same node.

use control::ModelStatus;
use serde::Serialize;

use crate::score::{Score, known_bytes, score};
use crate::snapshot::is_servable;
use crate::{Desk, Link, Node, Outliers, Snapshot, Standing, Tick};

/// Up to so many replicas are all compared.
pub const ALL_COMPARED: usize = 4;

/// When a replica is expected back, for a client that asks when to come again.
const LOADING_RETRY_SECS: u32 = 5;
const DOWN_RETRY_SECS: u32 = 2;
const UNHEARD_RETRY_SECS: u32 = 1;

/// A request, as far as routing cares.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The model that it names.
    pub model: &'a str,
    /// Requests that this gateway has open on each node, by the node's place in the snapshot. A
    /// node past the end has none.
    pub in_flight: &'a [u32],
    /// The place of a node that has just failed this request.
    pub tried: Option<usize>,
    /// What is promised: models on their way out, nodes that are drained.
    pub desk: &'a Desk,
    /// Nodes that have failed requests of late; they are asked when nobody else is left.
    pub outliers: &'a Outliers,
    /// What its prompt begins with, for the nodes that remember.
    pub chain: &'a [Link],
    /// Any number; another one for every request.
    pub draw: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Send it there.
    Forward(Forward<'a>),
    /// Answer it with an error.
    Refuse(Refusal),
}

/// A replica, and why it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<'a> {
    /// The node's place in the snapshot.
    pub node: usize,
    /// The node's name.
    pub name: &'a str,
    /// Base URL of the model's inference routes there.
    pub url: &'a str,
    /// What it was chosen by.
    pub score: Score,
    /// Replicas that it was chosen from.
    pub candidates: u32,
}

/// Why a request is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Every node has reported, and none has the model.
    NotFound,
    /// The model is known, or may be; it cannot answer now.
    Unavailable {
        /// What it waits for.
        reason: Unavailable,
        /// When to ask again; none when waiting alone does not help.
        retry_after_secs: Option<u32>,
    },
}

/// What a known model waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// A node that has never been heard may have it; a gateway that was started while a node is
    /// away must not call that node's models unknown.
    Unheard,
    /// A live node has it in this state, the one nearest to service.
    NotReady(ModelStatus),
    /// Every node that has it is lost or out of service.
    NodesDown,
    /// The only replica that could answer has just failed this request.
    NoOtherReplica,
}

/// Decides where a request goes at `now`.
///
/// A model whose nodes are all out of reach is unavailable, never unknown (requirements 68, 69).
#[must_use]
pub fn route<'a>(snapshot: &'a Snapshot, ask: &Ask<'_>, now: Tick) -> Route<'a> {
    let mut sound = replicas(snapshot, ask, now).filter(|place| {
        let suspected = ask.outliers.suspects(*place, &snapshot.nodes[*place], now);
        !suspected
    });
    let found = match (sound.next(), sound.next()) {
        (None, _) => choose(snapshot, ask, replicas(snapshot, ask, now).collect(), now),
        (Some(only), None) => choose(snapshot, ask, vec![only], now),
        (Some(first), Some(second)) => {
            choose(snapshot, ask, [first, second].into_iter().chain(sound).collect(), now)
        }
    };
    match found {
        Some(chosen) => Route::Forward(chosen),
        None => Route::Refuse(refusal(snapshot, ask, now)),
    }
}

/// The scores of all replicas, by place, as an operator wants to see them.
#[must_use]
pub fn rate(snapshot: &Snapshot, ask: &Ask<'_>, now: Tick) -> Vec<(usize, Score)> {
    let places: Vec<usize> = replicas(snapshot, ask, now).collect();
    let fastest = fastest_ms(ask, &places);
    let rated = |place| (place, score(place, &snapshot.nodes[place], ask, fastest, now));
    places.into_iter().map(rated).collect()
}

fn replicas<'s>(
    snapshot: &'s Snapshot,
    ask: &'s Ask<'_>,
    now: Tick,
) -> impl Iterator<Item = usize> + 's {
    let serves = move |(place, node): (usize, &std::sync::Arc<Node>)| {
        let is_open = ask.tried != Some(place) && !ask.desk.is_shut(place, ask.model);
        (is_open && servable_url(node, ask.model, now).is_some()).then_some(place)
    };
    snapshot.nodes.iter().enumerate().filter_map(serves)
}

fn choose<'a>(
    snapshot: &'a Snapshot,
    ask: &Ask<'_>,
    candidates: Vec<usize>,
    now: Tick,
) -> Option<Forward<'a>> {
    let count = candidates.len() as u32;
    let fastest = fastest_ms(ask, &candidates);
    let own = |place: usize| ask.in_flight.get(place).copied().unwrap_or(0);
    let scored = |place: usize| score(place, &snapshot.nodes[place], ask, fastest, now);
    let compared = drawn(snapshot, ask, candidates, now);
    // Of equals the first one wins, which is the one that was drawn first.
    let best = compared.into_iter().map(|place| (scored(place), place));
    let (score, node) = best.min_by_key(|(score, place)| (score.total(), own(*place)))?;
    let name = &snapshot.nodes[node].name;
    let url = snapshot.nodes[node].model(ask.model)?.endpoint.as_deref()?;
    Some(Forward { node, name, url, score, candidates: count })
}

/// Two of many, and the one that knows most of the prompt.
fn drawn(snapshot: &Snapshot, ask: &Ask<'_>, candidates: Vec<usize>, now: Tick) -> Vec<usize> {
    let count = candidates.len();
    if count <= ALL_COMPARED {
        return candidates;
    }
    let first = (ask.draw % count as u64) as usize;
    let step = 1 + (ask.draw / count as u64 % (count as u64 - 1)) as usize;
    let mut drawn = vec![candidates[first], candidates[(first + step) % count]];
    let knows = |place: &usize| known_bytes(*place, &snapshot.nodes[*place], ask, now);
    let best = candidates.iter().max_by_key(|place| knows(place)).filter(|place| knows(place) > 0);
    if let Some(best) = best.filter(|best| !drawn.contains(best)) {
        drawn.push(*best);
    }
    drawn
}

fn fastest_ms(ask: &Ask<'_>, places: &[usize]) -> Option<u32> {
    places.iter().filter_map(|place| ask.desk.latency_ms(*place, ask.model)).min()
}

fn servable_url<'a>(node: &'a Node, model: &str, now: Tick) -> Option<&'a str> {
    let model = node.model(model).filter(|model| is_servable(model))?;
    if node.standing(now) != Standing::Alive {
        return None;
    }
    model.endpoint.as_deref()
}

fn refusal(snapshot: &Snapshot, ask: &Ask<'_>, now: Tick) -> Refusal {
    let mut known = false;
    let mut is_one_unheard = false;
    let mut tried_serves = false;
    let mut nearest: Option<ModelStatus> = None;
    for (place, node) in snapshot.nodes.iter().enumerate() {
        let standing = node.standing(now);
        is_one_unheard |= node.seen.is_none() && standing != Standing::Removed;
        let Some(model) = node.model(ask.model) else { continue };
        known = true;
        if standing != Standing::Alive {
            continue;
        }
        tried_serves |= ask.tried == Some(place) && is_servable(model);
        let status = match is_servable(model) && ask.desk.is_shut(place, ask.model) {
            true => ModelStatus::Draining,
            false => model.status,
        };
        nearest = nearest.into_iter().chain([status]).max_by_key(|s| nearness(*s));
    }
    let unavailable = |reason, retry_after_secs| Refusal::Unavailable { reason, retry_after_secs };
    if tried_serves {
        return unavailable(Unavailable::NoOtherReplica, Some(DOWN_RETRY_SECS));
    }
    match nearest {
        Some(status) => unavailable(Unavailable::NotReady(status), retry_secs(status)),
        None if known => unavailable(Unavailable::NodesDown, Some(DOWN_RETRY_SECS)),
        None if is_one_unheard => unavailable(Unavailable::Unheard, Some(UNHEARD_RETRY_SECS)),
        None => Refusal::NotFound,
    }
}

/// How near a state is to service; a ready model without an endpoint is about to say where.
fn nearness(status: ModelStatus) -> u32 {
    match status {
        ModelStatus::Failed => 0,
        ModelStatus::Absent => 1,
        ModelStatus::Draining => 2,
        ModelStatus::Downloading => 3,
        ModelStatus::Loading => 4,
        ModelStatus::Restarting => 5,
        ModelStatus::Ready => 6,
    }
}

/// A model that failed or was never loaded does not come back by waiting.
fn retry_secs(status: ModelStatus) -> Option<u32> {
    match status {
        ModelStatus::Failed | ModelStatus::Absent => None,
        ModelStatus::Downloading => Some(30),
        ModelStatus::Loading | ModelStatus::Draining => Some(LOADING_RETRY_SECS),
        ModelStatus::Restarting | ModelStatus::Ready => Some(DOWN_RETRY_SECS),
    }
}
