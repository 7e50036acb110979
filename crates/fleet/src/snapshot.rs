//! What the gateway knows of the fleet at one moment.

use std::sync::Arc;

use control::{Discovery, Health, HealthStatus, ModelHealth, ModelReport, ModelStatus};
use serde::Serialize;

use crate::Tick;

/// Polls that a node may miss in a row before nothing is sent to it any more.
pub const MISSED_LIMIT: u32 = 3;

/// A report older than this is no proof of life, even when no poll was counted as missed: a poller
/// that stopped must not leave its node in service for ever.
pub const STALE_AFTER_MS: u64 = 30_000;

/// The fleet. Cloning it copies pointers, not reports.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In the order of the configuration; a node keeps its place.
    pub nodes: Vec<Arc<Node>>,
}

/// One configured neuron.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name in the configuration.
    pub name: String,
    /// Its configured base URL, without a trailing slash.
    pub endpoint: String,
    /// When its last report came; none before the first.
    pub seen: Option<Tick>,
    /// Polls missed since then.
    pub missed: u32,
    /// Why the last poll was missed.
    pub fault: Option<String>,
    /// Whether the configuration names it no more. It keeps its place, for those who count by it.
    pub is_removed: bool,
    /// Its last report. It is kept when the node goes away, so that its models stay known.
    pub report: Option<Arc<NodeReport>>,
}

/// What one poll of a node brought.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// `GET /health`.
    pub health: Health,
    /// `GET /models`, with endpoints that the gateway can reach.
    pub models: Vec<ModelReport>,
    /// `GET /discovery`, when it was asked.
    pub discovery: Option<Arc<Discovery>>,
}

/// Whether a node may be given requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has not answered yet and has not been given up.
    Unseen,
    /// It answers and serves.
    Alive,
    /// It answers and says that it does not serve.
    Unavailable,
    /// It missed [`MISSED_LIMIT`] polls, or its report is older than [`STALE_AFTER_MS`].
    Lost,
    /// The configuration names it no more.
    Removed,
}

impl Snapshot {
    /// A fleet of which nothing has been heard, from `(name, endpoint)` pairs.
    #[must_use]
    pub fn unseen(nodes: impl IntoIterator<Item = (String, String)>) -> Snapshot {
        Snapshot { nodes: nodes.into_iter().map(fresh).collect() }
    }

    /// The same fleet under another configuration: what is known stays known, and places stay. A
    /// node that is named no more is marked; one that moved is heard of anew.
    #[must_use]
    pub fn reconfigured(&self, nodes: &[(String, String)]) -> Snapshot {
        let named = |node: &Node| nodes.iter().find(|(name, _)| *name == node.name);
        let kept = |node: &Arc<Node>| match named(node) {
            Some((_, endpoint)) if *endpoint == node.endpoint && !node.is_removed => {
                Arc::clone(node)
            }
            Some(pair) => fresh(pair.clone()),
            None => Arc::new(Node { is_removed: true, report: None, ..(**node).clone() }),
        };
        let is_new = |(name, _): &&(String, String)| self.place(name).is_none();
        let new = nodes.iter().filter(is_new).cloned().map(fresh);
        Snapshot { nodes: self.nodes.iter().map(kept).chain(new).collect() }
    }

    /// The place of a node.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Whether any request at all could be forwarded at `now`.
    #[must_use]
    pub fn can_serve(&self, now: Tick) -> bool {
        self.nodes.iter().any(|node| {
            node.standing(now) == Standing::Alive && node.models().iter().any(is_servable)
        })
    }
}

fn fresh((name, endpoint): (String, String)) -> Arc<Node> {
    let (seen, fault, report) = (None, None, None);
    Arc::new(Node { name, endpoint, seen, missed: 0, fault, is_removed: false, report })
}

impl Node {
    /// Whether the node may be given requests at `now`.
    #[must_use]
    pub fn standing(&self, now: Tick) -> Standing {
        if self.is_removed {
            return Standing::Removed;
        }
        let (Some(seen), Some(report)) = (self.seen, &self.report) else {
            return if self.missed < MISSED_LIMIT { Standing::Unseen } else { Standing::Lost };
        };
        if self.missed >= MISSED_LIMIT || now.since_ms(seen) > STALE_AFTER_MS {
            return Standing::Lost;
        }
        match report.health.status {
            HealthStatus::Ok => Standing::Alive,
            HealthStatus::Unavailable => Standing::Unavailable,
        }
    }

    /// The models of its last report.
    #[must_use]
    pub fn models(&self) -> &[ModelReport] {
        self.report.as_ref().map_or(&[], |report| &report.models)
    }

    /// One model of its last report.
    #[must_use]
    pub fn model(&self, id: &str) -> Option<&ModelReport> {
        self.models().iter().find(|model| model.id == id)
    }

    /// Whether its last report has the model ready, and says where.
    #[must_use]
    pub fn serves(&self, id: &str) -> bool {
        self.model(id).is_some_and(is_servable)
    }

    /// The gauges of one model.
    #[must_use]
    pub fn gauges(&self, id: &str) -> Option<&ModelHealth> {
        self.report.as_ref()?.health.models.iter().find(|model| model.id == id)
    }
}

/// Whether a model answers: it is ready and says where.
pub(crate) fn is_servable(model: &ModelReport) -> bool {
    model.status == ModelStatus::Ready && model.endpoint.is_some()
}
