//! Carries out what the desk decides; the end of each is an event for the desk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control::{LoadReply, LoadRequest, UnloadRequest};
use fleet::{Command, LoadCause, Standing, UnloadCause, Unplanned};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use tokio::time::timeout;

use crate::app::App;
use crate::forward::chained;

/// A plan is arithmetic over a file's head.
const PLAN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a long order looks whether its node still lives.
const LOOK: Duration = Duration::from_secs(1);
/// Requests that came around this gateway may go on for so long.
const DRAIN_SECS: u64 = 30;
const REPLY_LIMIT_BYTES: usize = 1 << 20;

/// How an order ended.
enum Ended {
    /// With this status and body.
    Answer(u16, Bytes),
    /// Nobody knows: the node did not answer, or is gone.
    Unknown(String),
}

pub(crate) async fn carry_out(app: Arc<App>, command: Command) {
    match command {
        Command::Plan { place, model } => plan(&app, place, &model).await,
        Command::Load { place, model, devices, cause, .. } => {
            load(&app, place, &model, devices, cause).await;
        }
        Command::Unload { place, model, cause } => unload(&app, place, &model, cause).await,
        Command::Release { .. } => {}
    }
    app.pump();
}

async fn plan(app: &Arc<App>, place: usize, model: &str) {
    let request = app.settings.load().models.load_request(model);
    let asked = order(app, place, "/models/load?dry_run=1", &request);
    let answer = timeout(PLAN_TIMEOUT, asked).await;
    let plan = match answer {
        Ok(Ended::Answer(200, body)) => serde_json::from_slice::<LoadReply>(&body)
            .ok()
            .and_then(|reply| reply.plan)
            .ok_or(Unplanned::Unanswered),
        Ok(Ended::Answer(status, body)) if (400..500).contains(&status) => {
            Err(Unplanned::Refused(problem(status, &body)))
        }
        Ok(Ended::Answer(..) | Ended::Unknown(_)) | Err(_) => Err(Unplanned::Unanswered),
    };
    if let Err(why) = &plan {
        tracing::info!(node = app.node_name(place), model, ?why, "no plan");
    }
    let now = app.now();
    app.front().desk.planned(place, model, plan, now);
}

async fn load(
    app: &Arc<App>,
    place: usize,
    model: &str,
    devices: Vec<Option<u32>>,
    cause: LoadCause,
) {
    let node = app.node_name(place);
    tracing::info!(node, model, ?devices, ?cause, "load");
    let devices: Vec<u32> = devices.into_iter().flatten().collect();
    let request = LoadRequest {
        devices: (!devices.is_empty()).then_some(devices),
        wait: Some(true),
        ..app.settings.load().models.load_request(model)
    };
    let began = app.now();
    let result = match order(app, place, "/models/load", &request).await {
        Ended::Answer(200, _) => Ok(()),
        Ended::Answer(status, body) => Err(problem(status, &body)),
        Ended::Unknown(why) => Err(why),
    };
    let took_ms = app.now().since_ms(began);
    app.metrics.loaded(result.is_ok());
    match &result {
        Ok(()) => tracing::info!(node, model, took_ms, "loaded"),
        Err(why) => tracing::warn!(node, model, took_ms, why, "load failed"),
    }
    // Before the desk hears of it, so that the report which it waits for is younger.
    let now = app.now();
    {
        let mut front = app.front();
        front.loading.remove(&(place, model.to_owned()));
        front.desk.loaded(place, model, result, now);
    }
    app.poll_soon(place);
}

async fn unload(app: &Arc<App>, place: usize, model: &str, cause: UnloadCause) {
    let node = app.node_name(place);
    tracing::info!(node, model, ?cause, "unload");
    let request = UnloadRequest { model_id: model.to_owned(), drain_secs: Some(DRAIN_SECS) };
    let is_gone = match order(app, place, "/models/unload", &request).await {
        // What is not there need not go.
        Ended::Answer(200 | 404, _) => true,
        Ended::Answer(status, body) => {
            tracing::warn!(node, model, why = problem(status, &body), "unload failed");
            false
        }
        Ended::Unknown(why) => {
            tracing::warn!(node, model, why, "unload failed");
            false
        }
    };
    if is_gone && matches!(cause, UnloadCause::RoomFor { .. }) {
        app.metrics.evicted();
    }
    let now = app.now();
    app.front().desk.unloaded(place, model, is_gone, now);
    app.poll_soon(place);
}

/// Sends an order and waits for its end, however long that takes, as long as the node lives.
async fn order<T: Serialize>(app: &Arc<App>, place: usize, path: &str, body: &T) -> Ended {
    let endpoint = match app.fleet.load().nodes.get(place) {
        Some(node) => node.endpoint.clone(),
        None => return Ended::Unknown("the node is not configured any more".to_owned()),
    };
    let body = match serde_json::to_vec(body) {
        Ok(body) => Bytes::from(body),
        Err(error) => return Ended::Unknown(error.to_string()),
    };
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
    let asked = async {
        let url = format!("{endpoint}{path}");
        let answer = app.client.post(&url, headers, body).await;
        let answer = answer.map_err(|fault| chained(&fault))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), REPLY_LIMIT_BYTES).collect().await;
        Ok((status, body.map_err(|error| chained(&*error))?.to_bytes()))
    };
    let mut asked = std::pin::pin!(asked);
    loop {
        match timeout(LOOK, &mut asked).await {
            Ok(Ok((status, body))) => return Ended::Answer(status, body),
            Ok(Err(why)) => return Ended::Unknown(why),
            Err(_) => {}
        }
        let now = app.now();
        let fleet = app.fleet.load();
        let standing = fleet.nodes.get(place).map(|node| node.standing(now));
        if matches!(standing, None | Some(Standing::Lost | Standing::Removed)) {
            return Ended::Unknown("the node was lost meanwhile".to_owned());
        }
    }
}

/// A control plane's error in a line.
fn problem(status: u16, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Envelope {
        error: Inner,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        #[serde(default)]
        code: String,
        message: String,
    }
    match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { error: Inner { code, message } }) => format!("{code}: {message}"),
        Err(_) => format!("status {status}"),
    }
}
