//! Where a request goes.
//!
//! The load of a replica is `max(running + waiting, in_flight)`: the node's own count is as old as
//! its last poll, the gateway's count is exact but knows only its own requests. Taking the larger
//! one spreads a burst that falls between two polls. Ties go to the smaller `in_flight`, then to
//! the order of the configuration.

use control::ModelStatus;

use crate::snapshot::is_servable;
use crate::{Node, Snapshot, Standing, Tick};

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
    /// Places of nodes that the model is about to leave, or has left since their last report.
    pub leaving: &'a [usize],
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
    /// Its load, the least of the candidates'.
    pub load: u32,
    /// Replicas that it was chosen from.
    pub candidates: u32,
}

/// Why a request is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    let mut best: Option<((u32, u32), Forward<'a>)> = None;
    let mut candidates = 0;
    for (place, node) in snapshot.nodes.iter().enumerate() {
        let Some(url) = servable_url(node, ask.model, now) else { continue };
        if ask.tried == Some(place) || ask.leaving.contains(&place) {
            continue;
        }
        candidates += 1;
        let own = ask.in_flight.get(place).copied().unwrap_or(0);
        let load = reported_load(node, ask.model).max(own);
        if best.as_ref().is_none_or(|(least, _)| (load, own) < *least) {
            let chosen = Forward { node: place, name: &node.name, url, load, candidates: 0 };
            best = Some(((load, own), chosen));
        }
    }
    match best {
        Some((_, chosen)) => Route::Forward(Forward { candidates, ..chosen }),
        None => Route::Refuse(refusal(snapshot, ask, now)),
    }
}

fn servable_url<'a>(node: &'a Node, model: &str, now: Tick) -> Option<&'a str> {
    let model = node.model(model).filter(|model| is_servable(model))?;
    if node.standing(now) != Standing::Alive {
        return None;
    }
    model.endpoint.as_deref()
}

fn reported_load(node: &Node, model: &str) -> u32 {
    node.gauges(model).map_or(0, |gauges| gauges.running.saturating_add(gauges.waiting))
}

fn refusal(snapshot: &Snapshot, ask: &Ask<'_>, now: Tick) -> Refusal {
    let mut known = false;
    let mut is_one_unheard = false;
    let mut tried_serves = false;
    let mut nearest: Option<ModelStatus> = None;
    for (place, node) in snapshot.nodes.iter().enumerate() {
        let standing = node.standing(now);
        is_one_unheard |= node.seen.is_none();
        let Some(model) = node.model(ask.model) else { continue };
        known = true;
        if standing != Standing::Alive {
            continue;
        }
        tried_serves |= ask.tried == Some(place) && is_servable(model);
        nearest = nearest.into_iter().chain([model.status]).max_by_key(|s| nearness(*s));
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
