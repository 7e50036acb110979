//! The control plane's handlers; what they answer is described in the crate `control`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use control::{
    Discovery, EndpointReply, Health, HealthStatus, LoadReply, LoadRequest, ModelReport,
    ModelStatus, UnloadReply, UnloadRequest,
};
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::App;
use crate::body::{self, BodyError};
use crate::control_error::ControlError;
use crate::source::clip;

/// `GET /`: agents look here to see whether anybody is at home.
pub(crate) async fn root() -> Json<Value> {
    Json(json!({"name": "neuron", "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /discovery`
pub(crate) async fn discovery(State(app): State<Arc<App>>) -> Json<Discovery> {
    Json(app.discovery.clone())
}

/// `GET /version`
pub(crate) async fn version() -> Json<Value> {
    let features = if kernels::cuda::BUILT_IN { vec!["cuda"] } else { vec![] };
    Json(json!({
        "name": "neuron",
        "version": env!("CARGO_PKG_VERSION"),
        // Packages are built with it.
        "git_sha": option_env!("GIT_SHA"),
        "features": features,
        "debug": cfg!(debug_assertions),
    }))
}

/// `GET /health`, out of what the engines last said of themselves.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let now = Instant::now();
    let present = |status: ModelStatus| status != ModelStatus::Absent;
    let models = app.models.list();
    let stopping = app.is_stopping();
    let health = Health {
        uptime_secs: app.started.elapsed().as_secs(),
        status: if stopping { HealthStatus::Unavailable } else { HealthStatus::Ok },
        devices: app.cards.now().await,
        host_memory: app.models.host_memory(),
        models: models
            .iter()
            .filter(|served| present(served.view().status))
            .map(|served| served.health(now))
            .collect(),
        activation: app.models.activation(),
    };
    let status = if stopping { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(health)).into_response()
}

/// `GET /models`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Json<Vec<ModelReport>> {
    let url = app.base_url(&headers);
    Json(app.models.list().iter().map(|served| served.report(&url)).collect())
}

/// `GET /models/{id}` and `GET /models/{id}/endpoint`.
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ControlError> {
    let Path(rest) = path.map_err(|_| ControlError::unknown_model("not UTF-8"))?;
    let url = app.base_url(&headers);
    let Some(id) = rest.strip_suffix("/endpoint") else {
        let served = app.models.get(&rest).ok_or_else(|| ControlError::unknown_model(&rest))?;
        return Ok(Json(served.report(&url)).into_response());
    };
    let served = app.models.get(id).ok_or_else(|| ControlError::unknown_model(id))?;
    let endpoint = served.report(&url).endpoint;
    let url = endpoint.ok_or_else(|| ControlError::not_loaded(id))?;
    Ok(Json(EndpointReply { url }).into_response())
}

/// `POST /models/load`
pub(crate) async fn load(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<LoadReply>), ControlError> {
    let is_dry_run = is_dry_run(query.as_deref().unwrap_or_default())?;
    let request: LoadRequest = read_json(&app, &headers, body).await?;
    if is_dry_run {
        let plan = Some(app.models.dry_run(&request).await?);
        let reply = LoadReply { status: "planned".into(), plan, load_ms: None };
        return Ok((StatusCode::OK, Json(reply)));
    }
    // The load is a task of its own, so that it ends in the list whoever hangs up.
    let task = tokio::spawn(async move { app.models.load(request).await });
    let reply = task.await.map_err(|_| ControlError::shutting_down())??;
    let status = if reply.status == "loading" { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(reply)))
}

/// Whether only the plan of a load is wanted. What cannot be read is refused: a load that nobody
/// wanted takes a card's memory.
fn is_dry_run(query: &str) -> Result<bool, ControlError> {
    let mut is_dry_run = false;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        is_dry_run = match part.split_once('=').unwrap_or((part, "1")) {
            ("dry_run", "1" | "true") => true,
            ("dry_run", "0" | "false") => false,
            _ => {
                let part = clip(part);
                let message = format!("`{part}` is no option of a load: it takes dry_run=1");
                return Err(ControlError::bad_request(message));
            }
        };
    }
    Ok(is_dry_run)
}

/// `POST /models/unload`
pub(crate) async fn unload(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UnloadReply>, ControlError> {
    let request: UnloadRequest = read_json(&app, &headers, body).await?;
    Ok(Json(app.models.unload(request).await?))
}

async fn read_json<T: DeserializeOwned>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ControlError> {
    let bytes = body::read(headers, body, app.body_limit).await.map_err(|error| {
        let (status, code, message) = match error {
            BodyError::NotJson(kind) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                format!("content-type must be application/json, got {}", clip(&kind)),
            ),
            BodyError::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("body is larger than the limit of {} bytes", app.body_limit),
            ),
            BodyError::TooSlow => {
                (StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time".into())
            }
            BodyError::Broken => {
                (StatusCode::BAD_REQUEST, "bad_request", "the body broke off".into())
            }
        };
        let mut refused = ControlError::bad_request(message);
        (refused.status, refused.code) = (status, code);
        refused
    })?;
    if bytes.is_empty() {
        return Err(ControlError::bad_request("body is empty: send a JSON object"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ControlError::bad_request(clip(&format!("body: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_is_asked_for_in_other_words_is_never_a_load() {
        for (query, wanted) in [("", false), ("dry_run=1", true), ("dry_run=true", true)] {
            assert_eq!(is_dry_run(query), Ok(wanted), "{query}");
        }
        assert_eq!(is_dry_run("dry_run"), Ok(true));
        assert_eq!(is_dry_run("dry_run=0&dry_run=false"), Ok(false));
        for query in ["dry_run=yes", "dryrun=1", "dry_run=1&x"] {
            let error = is_dry_run(query).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{query}");
        }
    }
}
