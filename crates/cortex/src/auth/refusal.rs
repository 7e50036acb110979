//! What callers hear who may not, or not now.

use fleet::budget::Denied;
use wire::{ErrorBody, Retry};

use crate::config::Scope;

fn refusal(status: u16, kind: &'static str, code: &'static str, message: String) -> ErrorBody {
    ErrorBody { status, message, kind, param: None, code: Some(code), retry: Retry::Never }
}

pub(super) fn no_key() -> ErrorBody {
    let message = "an API key is needed: send it as `Authorization: Bearer KEY` or `x-api-key`";
    refusal(401, "authentication_error", "invalid_api_key", message.to_owned())
}

pub(super) fn wrong_key() -> ErrorBody {
    let message = "the API key is not known here".to_owned();
    refusal(401, "authentication_error", "invalid_api_key", message)
}

pub(super) fn closed_to(scope: Scope) -> ErrorBody {
    let needed = match scope {
        Scope::Inference => "inference",
        Scope::Metrics => "metrics",
        Scope::Admin => "admin",
    };
    let message = format!("the API key does not have the scope `{needed}`");
    refusal(403, "permission_error", "insufficient_permissions", message)
}

/// Waiting helps with all of these but a balance that is spent.
pub(super) fn denied(denied: Denied) -> ErrorBody {
    let secs = |ms: u64| u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX);
    match denied {
        Denied::Requests { after_ms } => {
            ErrorBody::rate_limited("too many requests a minute for this key", secs(after_ms))
        }
        Denied::Tokens { after_ms } => {
            ErrorBody::rate_limited("too many tokens a minute for this key", secs(after_ms))
        }
        Denied::Concurrency => ErrorBody::rate_limited("too many requests at once for this key", 1),
        Denied::Held => {
            let message = "the rest of this key's budget is held by requests that still run";
            ErrorBody::rate_limited(message, 2)
        }
        Denied::Spent { after_ms } => spent(after_ms.map(secs)),
    }
}

fn spent(after_secs: Option<u32>) -> ErrorBody {
    let mut error = ErrorBody::rate_limited("this key's token budget is spent", 60);
    (error.kind, error.code) = ("insufficient_quota", Some("insufficient_quota"));
    match after_secs {
        // Clients ignore more than a minute, so the rest of it stands in the words.
        Some(secs) => {
            error.message += &format!("; a part of it is free again in {secs} s");
            error.retry = Retry::After(secs.clamp(1, 60));
        }
        None => error.retry = Retry::Never,
    }
    error
}

/// A budget that replicas share cannot be looked at, and nobody may spend it unseen.
pub(super) fn unknowable() -> ErrorBody {
    ErrorBody::overloaded("this key's budget cannot be looked up now; ask again", 5)
}
