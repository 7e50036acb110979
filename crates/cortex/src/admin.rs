//! What an operator may ask for and change while the gateway runs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::{Outcome, Tick};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Dialect, ErrorBody};

use crate::app::App;
use crate::reply::{Reply, error_reply, json_reply, wrong_method};
use crate::{explain, reload, usage, view};

const DIALECT: Dialect = Dialect::OpenaiChat;
/// The largest body of an order.
const BODY_LIMIT_BYTES: usize = 64 << 10;
/// How long a model has to leave: its requests may go on for half of it.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// An order's end: a status and what it says, or a refusal.
type Done = Result<(StatusCode, Value), ErrorBody>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Load {
    model: String,
    node: Option<String>,
    #[serde(default = "yes")]
    wait: bool,
    timeout_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unload {
    model: String,
    node: Option<String>,
    #[serde(default = "yes")]
    wait: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    model: String,
    from: String,
    to: String,
}

fn yes() -> bool {
    true
}

/// Answers `/admin/...`.
pub(crate) async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let parts: Vec<&str> = path.trim_start_matches("/admin/").split('/').collect();
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    let is_post = head.method == Method::POST;
    let done = match parts.as_slice() {
        ["fleet"] if reads => return json_reply(StatusCode::OK, &view::fleet(app)),
        ["explain", model @ ..] if reads && !model.is_empty() => {
            let id = model.join("/");
            let id = percent_decode_str(&id).decode_utf8_lossy();
            return json_reply(StatusCode::OK, &explain::explain(app, &id));
        }
        ["nodes", node, what @ ("drain" | "resume")] if is_post => {
            drain(app, node, *what == "drain")
        }
        ["models", "load"] if is_post => match read(body).await {
            Ok(order) => load(app, order).await,
            Err(error) => Err(error),
        },
        ["models", "unload"] if is_post => match read(body).await {
            Ok(order) => unload(app, order).await,
            Err(error) => Err(error),
        },
        ["models", "move"] if is_post => match read(body).await {
            Ok(order) => moved(app, order).await,
            Err(error) => Err(error),
        },
        ["reload"] if is_post => reloaded(app).await,
        ["keys"] if reads => return usage::keys(app),
        ["usage"] if reads => {
            return usage::usage(app, head.uri.query().unwrap_or_default()).await;
        }
        ["fleet" | "keys" | "usage"] | ["explain", ..] => {
            return wrong_method(DIALECT, "", &head.method, "GET, HEAD");
        }
        ["nodes", _, "drain" | "resume"] | ["models", "load" | "unload" | "move"] | ["reload"] => {
            return wrong_method(DIALECT, "", &head.method, "POST");
        }
        _ => Err(ErrorBody::route_not_found(path)),
    };
    match done {
        Ok((status, value)) => json_reply(status, &value),
        Err(error) => error_reply(DIALECT, "", &error),
    }
}

async fn read<T: serde::de::DeserializeOwned>(body: Incoming) -> Result<T, ErrorBody> {
    let body = Limited::new(body, BODY_LIMIT_BYTES).collect().await;
    let body: Bytes = body
        .map_err(|error| ErrorBody::invalid_request(format!("the body broke off: {error}")))?
        .to_bytes();
    serde_json::from_slice(&body)
        .map_err(|error| ErrorBody::invalid_request(format!("the body is no order: {error}")))
}

fn place_of(app: &App, node: &str) -> Result<usize, ErrorBody> {
    let fleet = app.fleet.load();
    let named = |at: &usize| !fleet.nodes[*at].is_removed;
    fleet.place(node).filter(named).ok_or_else(|| {
        let names: Vec<&str> =
            fleet.nodes.iter().filter(|it| !it.is_removed).map(|it| it.name.as_str()).collect();
        not_found(format!("no node is called `{node}`; there are: {}", names.join(", ")))
    })
}

fn not_found(message: String) -> ErrorBody {
    let mut error = ErrorBody::invalid_request(message);
    (error.status, error.code) = (404, Some("not_found"));
    error
}

fn drain(app: &Arc<App>, node: &str, is_drained: bool) -> Done {
    let place = place_of(app, node)?;
    app.front().desk.drain(place, is_drained);
    tracing::info!(node, is_drained, "the operator drains a node, or gives it back");
    app.pump();
    let in_flight = app.in_flight().get(place).copied().unwrap_or(0);
    let status = if is_drained { "drained" } else { "in service" };
    Ok((StatusCode::OK, json!({ "node": node, "status": status, "in_flight": in_flight })))
}

async fn load(app: &Arc<App>, order: Load) -> Done {
    let on = order.node.as_deref().map(|node| place_of(app, node)).transpose()?;
    let settings = app.settings.load_full();
    let model = settings.models.catalogue.id(&order.model).to_owned();
    let secs = order.timeout_secs.unwrap_or(settings.config.gateway.hold_timeout_secs);
    let deadline = Tick(app.now().0.saturating_add(secs.saturating_mul(1000)));
    if !order.wait {
        let (app, id) = (Arc::clone(app), model.clone());
        tokio::spawn(async move { app.wait_for(&id, on, deadline).await });
        return Ok((StatusCode::ACCEPTED, json!({ "model": model, "status": "loading" })));
    }
    let began = app.now();
    match app.wait_for(&model, on, deadline).await {
        Some(Outcome::Ready) => {
            let load_ms = app.now().since_ms(began);
            let nodes = serving(app, &model);
            let done = json!({
                "model": model, "status": "loaded", "nodes": nodes, "load_ms": load_ms
            });
            Ok((StatusCode::OK, done))
        }
        Some(Outcome::TimedOut) => {
            let said = explain::explain(app, &model);
            Ok((StatusCode::GATEWAY_TIMEOUT, failed(&model, "timed_out", secs, &said.nodes)))
        }
        Some(Outcome::Nowhere(_)) => {
            let said = explain::explain(app, &model);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, failed(&model, "nowhere", secs, &said.nodes)))
        }
        None => Err(crate::refusal::crowded()),
    }
}

fn failed(model: &str, code: &str, secs: u64, nodes: &[explain::NodeSays]) -> Value {
    let message = match code {
        "timed_out" => format!("`{model}` was not ready within {secs} s"),
        _ => format!("no node can have `{model}` now"),
    };
    json!({ "error": { "code": code, "message": message, "nodes": nodes } })
}

fn serving(app: &App, model: &str) -> Vec<String> {
    let fleet = app.fleet.load();
    let has = |node: &&Arc<fleet::Node>| {
        node.model(model).is_some_and(|report| report.endpoint.is_some())
    };
    fleet.nodes.iter().filter(has).map(|node| node.name.clone()).collect()
}

async fn unload(app: &Arc<App>, order: Unload) -> Done {
    let model = app.settings.load().models.catalogue.id(&order.model).to_owned();
    let only = order.node.as_deref().map(|node| place_of(app, node)).transpose()?;
    let places: Vec<usize> = holders(app, &model)
        .into_iter()
        .filter(|place| only.is_none_or(|only| only == *place))
        .collect();
    if places.is_empty() {
        return Err(not_found(format!("`{model}` is not loaded there")));
    }
    dismiss(app, &model, &places);
    let nodes: Vec<String> = places.iter().map(|place| app.node_name(*place)).collect();
    if order.wait && !until_gone(app, &model, &places).await {
        let message = format!("`{model}` has not left {} yet", nodes.join(", "));
        let error = json!({ "error": { "code": "timed_out", "message": message } });
        return Ok((StatusCode::GATEWAY_TIMEOUT, error));
    }
    let status = if order.wait { "unloaded" } else { "unloading" };
    Ok((StatusCode::OK, json!({ "model": model, "status": status, "nodes": nodes })))
}

fn dismiss(app: &Arc<App>, model: &str, places: &[usize]) {
    {
        let mut front = app.front();
        places.iter().for_each(|place| front.desk.dismiss(*place, model));
    }
    app.pump();
}

/// Nodes on which a model holds memory.
fn holders(app: &App, model: &str) -> Vec<usize> {
    use control::ModelStatus::{Absent, Failed};
    let fleet = app.fleet.load();
    let holds = |node: &fleet::Node| {
        node.model(model).is_some_and(|it| !matches!(it.status, Absent | Failed))
    };
    fleet.nodes.iter().enumerate().filter(|(_, node)| holds(node)).map(|it| it.0).collect()
}

async fn until_gone(app: &Arc<App>, model: &str, places: &[usize]) -> bool {
    let gone = async {
        while holders(app, model).iter().any(|place| places.contains(place)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(UNLOAD_TIMEOUT, gone).await.is_ok()
}

/// The model is loaded there before it leaves here.
async fn moved(app: &Arc<App>, order: Move) -> Done {
    let from = place_of(app, &order.from)?;
    let model = app.settings.load().models.catalogue.id(&order.model).to_owned();
    if !holders(app, &model).contains(&from) {
        return Err(not_found(format!("`{model}` is not on `{}`", order.from)));
    }
    let there =
        Load { model: model.clone(), node: Some(order.to.clone()), wait: true, timeout_secs: None };
    let (status, said) = load(app, there).await?;
    if status != StatusCode::OK {
        return Ok((status, said));
    }
    dismiss(app, &model, &[from]);
    let is_gone = until_gone(app, &model, &[from]).await;
    let status = if is_gone { "moved" } else { "loaded there, still leaving" };
    let done = json!({ "model": model, "status": status, "from": order.from, "to": order.to });
    Ok((StatusCode::OK, done))
}

async fn reloaded(app: &Arc<App>) -> Done {
    match reload::reload(app).await {
        Ok(fixed) => Ok((StatusCode::OK, json!({ "status": "reloaded", "need_restart": fixed }))),
        Err(error) => {
            tracing::error!(%error, "the configuration stays as it was");
            let message = format!("nothing has changed: {error}");
            let error = json!({ "error": { "code": "bad_configuration", "message": message } });
            Ok((StatusCode::UNPROCESSABLE_ENTITY, error))
        }
    }
}
