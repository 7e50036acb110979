//! Errors of the control plane: `{"error":{"code","message","model_id"?, …}}`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::child::link::{LoadCode, LoadDetails, LoadFailure};
use crate::models::lifecycle::Refused;
use crate::models::supervisor::LoadRefused;
use crate::source::clip;

/// A refusal with what a caller can decide by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ControlError {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// What a program decides by.
    pub(crate) code: &'static str,
    /// What is wrong and what to do.
    pub(crate) message: String,
    /// The model that it is about.
    pub(crate) model_id: Option<String>,
    /// When to come back, where that helps.
    pub(crate) retry_after_secs: Option<u32>,
    /// Further fields of the body.
    pub(crate) details: Option<Box<LoadDetails>>,
}

impl ControlError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let (message, model_id) = (message.into(), None);
        Self { status, code, message, model_id, retry_after_secs: None, details: None }
    }

    /// 400: the request makes no sense.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 404: no such model.
    pub(crate) fn unknown_model(id: &str) -> Self {
        let message = format!("no model `{}` is loaded or configured", clip(id));
        Self::new(StatusCode::NOT_FOUND, "model_not_found", message)
    }

    /// 404: the model is known and cannot answer now.
    pub(crate) fn not_loaded(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_loaded", "the model is not loaded").about(id)
    }

    /// 503: the daemon ends.
    pub(crate) fn shutting_down() -> Self {
        let message = "the daemon is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message).later(10)
    }

    /// Names the model.
    pub(crate) fn about(mut self, id: &str) -> Self {
        self.model_id = Some(id.to_owned());
        self
    }

    fn later(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }
}

impl From<LoadFailure> for ControlError {
    fn from(failure: LoadFailure) -> Self {
        let status = match failure.code {
            LoadCode::CudaUnavailable | LoadCode::EngineFailed => StatusCode::SERVICE_UNAVAILABLE,
            LoadCode::BadRequest => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let error = Self::new(status, failure.code.as_str(), failure.message);
        let error = Self { details: failure.details, ..error };
        if status == StatusCode::SERVICE_UNAVAILABLE { error.later(60) } else { error }
    }
}

impl From<LoadRefused> for ControlError {
    fn from(refused: LoadRefused) -> Self {
        let message = refused.to_string();
        match refused {
            LoadRefused::Refused(Refused::Failed(failure)) => failure.into(),
            LoadRefused::Refused(Refused::Draining) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message).later(5)
            }
            LoadRefused::Refused(Refused::Undone) => {
                Self::new(StatusCode::CONFLICT, "unloaded", message)
            }
            LoadRefused::Conflict { .. } => Self::new(StatusCode::CONFLICT, "conflict", message),
        }
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        // Requirement 94: each refusal is logged once. What a caller wrote is clipped in it.
        let (status, code, model) = (self.status.as_u16(), self.code, self.model_id.as_deref());
        tracing::info!(status, code, model, reason = self.message, "control request refused");
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(id) = self.model_id {
            error["model_id"] = id.into();
        }
        for (name, value) in self.details.iter().flat_map(|details| details.fields()) {
            error[name] = value;
        }
        let body = axum::Json(json!({ "error": error }));
        let mut response = (self.status, body).into_response();
        if let Some(secs) = self.retry_after_secs {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}
