//! Errors in Anthropic's envelope and with its statuses.

use schemars::JsonSchema;
use serde::Serialize;

use super::parse::THREAD;
use crate::{ErrorBody, sse};

#[derive(Serialize, JsonSchema)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: Inner<'a>,
    request_id: &'a str,
}

#[derive(Serialize, JsonSchema)]
struct Inner<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

/// By which SDKs know that they have to go on without a thread.
#[derive(Serialize, JsonSchema)]
struct Details {
    error_code: &'static str,
    unsupported: [&'static str; 1],
}

/// Status and body.
pub(crate) fn error(error: &ErrorBody, request_id: &str) -> (u16, Vec<u8>) {
    let (status, kind) = status_and_kind(error);
    let body = serde_json::to_vec(&envelope(kind, error, request_id));
    (status, body.expect("strings always serialise"))
}

/// The event that ends a stream which cannot be completed.
pub(crate) fn error_event(error: &ErrorBody, request_id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (_, kind) = status_and_kind(error);
    sse::push_event(&mut out, "error", &envelope(kind, error, request_id));
    out
}

fn envelope<'a>(kind: &'static str, error: &'a ErrorBody, request_id: &'a str) -> Envelope<'a> {
    let details = (error.param.as_deref() == Some(THREAD))
        .then_some(Details { error_code: "thread_unsupported_request", unsupported: [THREAD] });
    let error = Inner { kind, message: &error.message, details };
    Envelope { kind: "error", error, request_id }
}

/// The dialect knows no 503: what may pass is its 529, which SDKs try again.
fn status_and_kind(error: &ErrorBody) -> (u16, &'static str) {
    match error.status {
        401 => (401, "authentication_error"),
        402 => (402, "billing_error"),
        403 => (403, "permission_error"),
        404 => (404, "not_found_error"),
        408 => (408, "timeout_error"),
        413 => (413, "request_too_large"),
        429 => (429, "rate_limit_error"),
        503 if error.should_retry() => (529, "overloaded_error"),
        504 => (504, "timeout_error"),
        status @ 400..=499 => (status, "invalid_request_error"),
        status => (status, "api_error"),
    }
}

/// The shape of a refusal.
pub(crate) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<Envelope<'static>>()
}
