//! Why a model is where it is, and why it is nowhere else: the reasons of decisions, as data.

use fleet::{Arrival, Ask, Command, Profile, Score, Verdict, View, rate};
use serde::Serialize;

use crate::app::App;

/// `GET /admin/explain/{model}`.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// The model's own name.
    pub model: String,
    /// What the catalogue says of it, or would if it were named there.
    pub profile: Profile,
    /// Whether the catalogue names it.
    pub is_in_catalogue: bool,
    /// Requests that wait for it.
    pub waiting: usize,
    /// Where requests go now, with what speaks for and against each.
    pub replicas: Vec<Replica>,
    /// What each node is for it.
    pub nodes: Vec<NodeSays>,
    /// Where it is on its way.
    pub arrivals: Vec<Coming>,
    /// The last decisions about it, the latest first.
    pub decisions: Vec<Decision>,
}

/// A node that serves the model.
#[derive(Debug, Serialize)]
pub(crate) struct Replica {
    pub node: String,
    /// The least total is asked next.
    pub total: i64,
    pub score: Score,
    /// Failed requests of late: asked when nobody else is left.
    pub is_suspect: bool,
}

/// What a node is for the model.
#[derive(Debug, Serialize)]
pub(crate) struct NodeSays {
    pub node: String,
    pub verdict: Verdict,
}

/// A model on its way to a node.
#[derive(Debug, Serialize)]
pub(crate) struct Coming {
    pub node: String,
    #[serde(flatten)]
    pub arrival: Arrival,
}

/// Something that was decided.
#[derive(Debug, Serialize)]
pub(crate) struct Decision {
    pub ms_ago: u64,
    pub node: String,
    #[serde(flatten)]
    pub command: Command,
}

/// Explains a model, by its name or an alias.
pub(crate) fn explain(app: &App, name: &str) -> Explanation {
    let (settings, fleet, now) = (app.settings.load(), app.fleet.load(), app.now());
    let catalogue = &settings.models.catalogue;
    let model = catalogue.id(name);
    let profile = catalogue.profile(model);
    let front = app.front();
    let node = |place: usize| fleet.nodes.get(place).map_or_else(String::new, |n| n.name.clone());
    let (desk, outliers) = (&front.desk, &front.outliers);
    let view = View { snapshot: &fleet, catalogue, desk, strategy: settings.strategy() };
    let ask =
        Ask { model, in_flight: &front.open, tried: None, desk, outliers, chain: &[], draw: 0 };
    let replica = |(place, score): (usize, Score)| Replica {
        node: node(place),
        total: score.total(),
        score,
        is_suspect: outliers.suspects(place, &fleet.nodes[place], now),
    };
    let verdicts = view.explain(&profile, now).into_iter().enumerate();
    let verdicts = verdicts.filter(|(place, _)| !fleet.nodes[*place].is_removed);
    let arrivals = desk.arrivals().iter().filter(|arrival| arrival.model == model);
    let decisions = front.journal.iter().rev().filter_map(|(at, command)| {
        let (place, about) = about(command)?;
        let (ms_ago, command) = (now.since_ms(*at), command.clone());
        about.contains(&model).then(|| Decision { ms_ago, node: node(place), command })
    });
    Explanation {
        is_in_catalogue: catalogue.models.contains_key(model),
        waiting: desk.waiting_for(model),
        replicas: rate(&fleet, &ask, now).into_iter().map(replica).collect(),
        nodes: verdicts.map(|(at, verdict)| NodeSays { node: node(at), verdict }).collect(),
        arrivals: arrivals.map(|it| Coming { node: node(it.place), arrival: it.clone() }).collect(),
        decisions: decisions.collect(),
        model: model.to_owned(),
        profile,
    }
}

/// Where a command acts, and the models that it is about.
fn about(command: &Command) -> Option<(usize, Vec<&str>)> {
    match command {
        Command::Load { place, model, .. } => Some((*place, vec![model])),
        Command::Unload { place, model, cause } => {
            let mut models = vec![model.as_str()];
            if let fleet::UnloadCause::RoomFor { model, .. } = cause {
                models.push(model);
            }
            Some((*place, models))
        }
        Command::Plan { .. } | Command::Release { .. } => None,
    }
}
