//! From the words of a load to what an engine is told, and what that would take.

use std::path::PathBuf;

use control::{LoadPlan, LoadRequest};
use engine::EngineSpec;

use super::Models;
use super::served::NATIVE;
use crate::child::link::LoadFailure;
use crate::child::native;
use crate::control_error::ControlError;
use crate::host::device;
use crate::source::{self, Allowed, Chosen};

impl Models {
    /// What the engine is told for this request. What it does not say, the configuration of that
    /// id says, so that both ways to a load agree (requirement 42).
    pub(super) async fn plan(&self, request: &LoadRequest) -> Result<EngineSpec, ControlError> {
        let configured = self.configured.get(&request.model_id);
        let native = &self.native;
        check(request).map_err(ControlError::bad_request)?;
        let source = request.source.clone().map(PathBuf::from);
        let own = configured.and_then(|model| model.source.clone()).map(PathBuf::from);
        let quant = request.quant.clone().or_else(|| configured.and_then(|m| m.quant.clone()));
        let of_config = |field: fn(&LoadRequest) -> Option<u32>| configured.and_then(field);
        let max_running = request.max_running.or_else(|| of_config(|m| m.max_running));
        let ranks = request.tensor_parallel.or_else(|| of_config(|m| m.tensor_parallel));
        let ranks = ranks.unwrap_or(1);
        let devices = request.devices.as_ref();
        let devices = devices.or_else(|| configured.and_then(|model| model.devices.as_ref()));
        let devices = devices.cloned().unwrap_or_default();
        let (allowed, id) = (self.allowed.clone(), request.model_id.clone());
        let (policy, promised) = (native.device, self.promised_of_cards());
        // Both a disk and a driver may take their time.
        let find = move || {
            let chosen = find_source(&allowed, &id, source, own, quant.as_deref())?;
            Ok((chosen, device::choose(policy, &devices, ranks, &promised)?))
        };
        let found = tokio::task::spawn_blocking(find).await.map_err(|_| {
            ControlError::bad_request("the source could not be looked at; see the daemon's log")
        })?;
        let (chosen, device) = found.map_err(|failure: LoadFailure| ControlError::from(failure))?;
        Ok(EngineSpec {
            device,
            context: request.context.or_else(|| of_config(|m| m.context)),
            max_running: max_running.unwrap_or(native.max_running),
            token_budget: device::token_budget(device, native.token_budget),
            stall_ms: native.stall_ms,
            world_size: ranks,
            threads: native.threads,
            prefix_cache: native.prefix_cache,
            host_cache_bytes: u64::from(native.host_cache_mb) << 20,
            quant: chosen.quant,
            ..EngineSpec::new(chosen.path)
        })
    }
}

pub(super) async fn planned(spec: EngineSpec) -> Result<LoadPlan, ControlError> {
    let planned = tokio::task::spawn_blocking(move || native::plan(&spec)).await;
    let planned = planned.map_err(|_| {
        ControlError::bad_request("the model made its reader panic; see the daemon's log")
    })?;
    planned.map_err(ControlError::from)
}

/// What is wrong with the words of a load, whoever wrote them.
pub(crate) fn check(request: &LoadRequest) -> Result<(), String> {
    if !source::is_model_id(&request.model_id) {
        let message = "model_id must be names of letters, digits and ._-+:@ between slashes";
        return Err(message.to_owned());
    }
    if let Some(harness) = request.harness.as_deref()
        && ![NATIVE, "candle"].contains(&harness)
    {
        return Err(format!("harness is `{}`, this node has: {NATIVE}", source::clip(harness)));
    }
    for (field, value) in [
        ("context", request.context),
        ("max_running", request.max_running),
        ("tensor_parallel", request.tensor_parallel),
    ] {
        if value == Some(0) {
            return Err(format!("{field} must be at least 1, got 0"));
        }
    }
    Ok(())
}

fn find_source(
    allowed: &Allowed,
    id: &str,
    asked: Option<PathBuf>,
    configured: Option<PathBuf>,
    quant: Option<&str>,
) -> Result<Chosen, LoadFailure> {
    let source = match (asked, configured) {
        (Some(asked), Some(own)) if asked == own => own,
        (Some(asked), _) => allowed.check(&asked)?,
        (None, Some(own)) => own,
        (None, None) => allowed.look_up(id)?,
    };
    source::choose(&source, quant)
}
