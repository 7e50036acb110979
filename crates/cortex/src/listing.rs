//! What cortex answers from its snapshot, at once: models, health, version.

use std::collections::BTreeMap;

use bytes::Bytes;
use control::{ModelReport, ModelStatus};
use fleet::{Snapshot, Standing, Tick, Verdict, View};
use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::json;
use wire::models::{Limit, Location, Model};
use wire::{Dialect, ErrorBody};

use crate::app::App;
use crate::reply::{Reply, bytes_reply, error_reply, json_reply};
use crate::view::{model_word, standing_word};

/// `GET /v1/models`.
pub(crate) fn models(app: &App, dialect: Dialect) -> Reply {
    let all = everything(app);
    json_bytes(match dialect {
        Dialect::Anthropic => wire::models::anthropic_list(&all),
        _ => wire::models::list(&all),
    })
}

/// `GET /v1/models/{id}`; the id may be percent-encoded and may hold slashes.
pub(crate) fn model(app: &App, path: &str, dialect: Dialect, request_id: &str) -> Reply {
    let encoded = path.trim_start_matches("/v1/models/");
    let id = percent_decode_str(encoded).decode_utf8_lossy();
    let all = everything(app);
    match all.iter().find(|model| model.id == id) {
        Some(model) if dialect == Dialect::Anthropic => {
            json_bytes(wire::models::anthropic_one(model))
        }
        Some(model) => json_bytes(wire::models::one(model)),
        None => error_reply(dialect, request_id, &ErrorBody::model_not_found(&id)),
    }
}

/// `GET /health`: 503 when no request at all could be forwarded (requirement 119).
pub(crate) fn health(app: &App) -> Reply {
    let (fleet, now) = (app.fleet.load(), app.now());
    let nodes: Vec<_> = fleet
        .nodes
        .iter()
        .filter(|node| !node.is_removed)
        .map(|node| json!({ "name": node.name, "status": standing_word(node.standing(now)) }))
        .collect();
    // What is not loaded can be, as long as a node is there.
    let is_alive = |node: &std::sync::Arc<fleet::Node>| node.standing(now) == Standing::Alive;
    let can_load =
        !app.settings.load().models.catalogue.models.is_empty() && fleet.nodes.iter().any(is_alive);
    let (code, status) = match fleet.can_serve(now) || can_load {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    json_reply(code, &json!({ "status": status, "nodes": nodes }))
}

/// `GET /openapi.json`
pub(crate) fn openapi() -> Reply {
    bytes_reply(StatusCode::OK, "application/json", wire::openapi::document().into())
}

/// `GET /version`.
pub(crate) fn version() -> Reply {
    let body = json!({ "name": "cortex", "version": env!("CARGO_PKG_VERSION") });
    json_reply(StatusCode::OK, &body)
}

fn json_bytes(body: Vec<u8>) -> Reply {
    bytes_reply(StatusCode::OK, "application/json", Bytes::from(body))
}

/// What nodes have, what the catalogue names, and the aliases.
fn everything(app: &App) -> Vec<Model> {
    let (fleet, settings, now) = (app.fleet.load(), app.settings.load(), app.now());
    let catalogue = &settings.models.catalogue;
    let mut all = merged(&fleet, now, app.created);
    let front = app.front();
    let view =
        View { snapshot: &fleet, catalogue, desk: &front.desk, strategy: settings.strategy() };
    for (id, profile) in &catalogue.models {
        let model = all.entry(id.clone()).or_insert_with(|| Model {
            loaded: Some(false),
            ..Model::new(id.as_str(), app.created, None)
        });
        let verdicts = view.explain(profile, now).into_iter().zip(&fleet.nodes);
        let could = verdicts.filter(|(verdict, _)| {
            matches!(verdict, Verdict::Fits(_) | Verdict::Present(_) | Verdict::NoRoom { .. })
        });
        model.feasible_on = could.map(|(_, node)| node.name.clone()).collect();
    }
    for (alias, id) in &catalogue.aliases {
        if let Some(model) = all.get(id).cloned() {
            all.insert(alias.clone(), Model { id: alias.clone(), ..model });
        }
    }
    all.into_values().collect()
}

/// Every model that a node has reported, by id. A model stays listed while its nodes are away
/// (requirement 69); its limits are the tightest of its replicas'.
fn merged(fleet: &Snapshot, now: Tick, created: u64) -> BTreeMap<String, Model> {
    let mut all: BTreeMap<String, Model> = BTreeMap::new();
    for node in &fleet.nodes {
        let standing = node.standing(now);
        for report in node.models() {
            let model = all.entry(report.id.clone()).or_insert_with(|| Model {
                loaded: Some(false),
                ..Model::new(report.id.as_str(), created, None)
            });
            let is_ready = report.status == ModelStatus::Ready && standing == Standing::Alive;
            let status = match standing {
                Standing::Alive => model_word(report.status),
                other => standing_word(other),
            };
            model.loaded = Some(model.loaded == Some(true) || is_ready);
            model.locations.push(Location { node: node.name.clone(), status: status.to_owned() });
            tighten(model, report);
        }
    }
    all
}

fn tighten(model: &mut Model, report: &ModelReport) {
    let fresh = report.capabilities.iter().filter(|c| !model.capabilities.contains(c));
    let fresh: Vec<String> = fresh.cloned().collect();
    model.capabilities.extend(fresh);
    model.capabilities.sort();
    // 0 is a node's way to say that it does not know yet.
    if report.limit.context == 0 {
        return;
    }
    let context = model.max_model_len.map_or(report.limit.context, |c| c.min(report.limit.context));
    let outputs = [model.limit.and_then(|limit| limit.output), report.limit.output];
    model.max_model_len = Some(context);
    model.limit = Some(Limit { context, output: outputs.into_iter().flatten().min() });
}
