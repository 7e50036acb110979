//! Decisions against forwarding, in the client's words: nothing of hosts and addresses.

use control::ModelStatus;
use fleet::{Refusal, Standing, Unavailable, Verdict};
use wire::{ErrorBody, Retry};

/// When somebody comes back whose model no node can have now.
const PATIENT_RETRY_SECS: u32 = 10;

/// The only replica has failed the request.
pub(crate) const NO_OTHER: Refusal =
    Refusal::Unavailable { reason: Unavailable::NoOtherReplica, retry_after_secs: Some(2) };

/// A decision against forwarding, in the client's words.
pub(crate) fn refused(refusal: Refusal, model: &str) -> ErrorBody {
    let Refusal::Unavailable { reason, retry_after_secs } = refusal else {
        return ErrorBody::model_not_found(model);
    };
    let (code, why) = match reason {
        Unavailable::Unheard => ("node_unavailable", "may be on a node that has not answered yet"),
        Unavailable::NodesDown => ("node_unavailable", "is on nodes that do not answer now"),
        Unavailable::NoOtherReplica => ("node_unavailable", "is on a node that did not answer"),
        Unavailable::NotReady(status) => match status {
            ModelStatus::Absent => ("not_loaded", "is known and not loaded; load it first"),
            ModelStatus::Downloading => ("loading", "is being downloaded"),
            ModelStatus::Loading => ("loading", "is loading"),
            ModelStatus::Ready => ("loading", "is about to be ready"),
            ModelStatus::Draining => ("draining", "is being taken out of service"),
            ModelStatus::Failed => ("load_failed", "could not be loaded; its node says why"),
            ModelStatus::Restarting => ("restarting", "is being started again after a fault"),
        },
    };
    unavailable(model, code, why, retry_after_secs.map_or(Retry::Never, Retry::After))
}

/// The model did not come in time.
pub(crate) fn late(model: &str, waited_secs: u64, retry_after_secs: u32) -> ErrorBody {
    let why = format!("was not ready within {waited_secs} s; it may be soon");
    unavailable(model, "loading", &why, Retry::After(retry_after_secs))
}

/// No node can have the model now. What each of them says is for the operator.
pub(crate) fn nowhere(model: &str, verdicts: &[Verdict]) -> ErrorBody {
    let passes = verdicts.iter().any(|verdict| match verdict {
        Verdict::OutOfService(standing) => *standing != Standing::Removed,
        Verdict::Drained | Verdict::BackingOff { .. } | Verdict::SizeUnknown => true,
        _ => false,
    });
    let has_failed = |verdict: &Verdict| matches!(verdict, Verdict::BackingOff { .. });
    let code = if verdicts.iter().any(has_failed) { "load_failed" } else { "node_unavailable" };
    match passes {
        true => {
            let why = "cannot be loaded now; its operator finds the reasons with --explain";
            unavailable(model, code, why, Retry::After(PATIENT_RETRY_SECS))
        }
        false => {
            let why = "fits on no node; its operator finds the reasons with --explain";
            unavailable(model, "cannot_be_placed", why, Retry::Never)
        }
    }
}

/// The line is full.
pub(crate) fn crowded() -> ErrorBody {
    ErrorBody::overloaded("too many requests wait for models already", 5)
}

fn unavailable(model: &str, code: &'static str, why: &str, retry: Retry) -> ErrorBody {
    let shown: String = model.chars().take(100).collect();
    let message = format!("the model `{shown}` {why}");
    let (kind, param, code) = ("server_error", Some("model".to_owned()), Some(code));
    ErrorBody { status: 503, message, kind, param, code, retry }
}
