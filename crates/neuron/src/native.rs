//! The project's own engine, as the child loads it and the daemon plans it.

use std::path::Path;

use control::{LoadPlan, RankPlan};
use engine::{EngineInfo, EngineSpec, LoadError, TokenEngine};
use kernels::DeviceFault;

use crate::discover;
use crate::link::{LoadCode, LoadFailure};

/// Weights below this fit a core's caches, more or less.
const SMALL_MODEL_BYTES: u64 = 64 << 20;

/// Loads a model, after a look at whether it fits.
pub fn load(
    spec: &EngineSpec,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn TokenEngine>, LoadFailure> {
    let say = |error| failure(&spec.source, &error);
    let info = engine::plan(spec).map_err(say)?;
    if let (needed, Some(free)) = (bytes(&info), discover::available_memory_bytes())
        && needed > free
    {
        let mib = |bytes: u64| bytes >> 20;
        let message = format!(
            "the model needs {} MiB and {} MiB are free: ask for less `context` or `max_running`, \
             or unload another model",
            mib(needed),
            mib(free)
        );
        return Err(LoadFailure::new(LoadCode::DoesNotFit, message));
    }
    let threads = spec.threads.or_else(|| Some(threads_for(&info)));
    let engine = engine::load(&EngineSpec { threads, ..spec.clone() }, progress).map_err(say)?;
    Ok(Box::new(engine))
}

/// All cores, but one for a model so small that handing work over costs more than doing it.
fn threads_for(info: &EngineInfo) -> u32 {
    let weights: u64 = info.ranks.iter().map(|rank| rank.weights).sum();
    if weights < SMALL_MODEL_BYTES {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// What a load would take, and whether that is free now.
pub(crate) fn plan(spec: &EngineSpec) -> Result<LoadPlan, LoadFailure> {
    let info = engine::plan(spec).map_err(|error| failure(&spec.source, &error))?;
    let fits = discover::available_memory_bytes().is_none_or(|free| bytes(&info) <= free);
    Ok(load_plan(&info, fits))
}

/// A load in the control plane's terms.
pub(crate) fn load_plan(info: &EngineInfo, fits: bool) -> LoadPlan {
    let ranks = info.ranks.iter().map(|rank| RankPlan {
        weight_bytes: rank.weights,
        kv_bytes: rank.kv,
        state_bytes: rank.state,
        workspace_bytes: rank.workspace,
        graph_bytes: 0,
    });
    LoadPlan { ranks: ranks.collect(), fits, context: info.context, max_running: info.max_running }
}

/// Memory of all ranks together.
pub(crate) fn bytes(info: &EngineInfo) -> u64 {
    let ranks = info.ranks.iter();
    ranks.map(|rank| rank.weights + rank.kv + rank.state + rank.workspace).sum()
}

fn failure(source: &Path, error: &LoadError) -> LoadFailure {
    let code = match error {
        LoadError::Model(error) => code(error),
        LoadError::BadSpec { .. } => LoadCode::BadRequest,
        LoadError::Device(DeviceFault::OutOfMemory { .. }) => LoadCode::DoesNotFit,
        LoadError::Device(DeviceFault::NoDevice(_) | DeviceFault::Unusable(_)) => {
            LoadCode::CudaUnavailable
        }
        LoadError::Device(DeviceFault::Failed { .. }) => LoadCode::EngineFailed,
    };
    LoadFailure::new(code, without_paths(source, &error.to_string()))
}

pub(crate) fn code(error: &model::Error) -> LoadCode {
    match error {
        model::Error::NotFound { .. } => LoadCode::RepoNotFound,
        model::Error::Missing { .. } => LoadCode::EmptyRepo,
        model::Error::UnsupportedArchitecture { .. } => LoadCode::UnsupportedArchitecture,
        model::Error::Indivisible { .. } => LoadCode::TensorParallelIndivisible,
        _ => LoadCode::BadModelFile,
    }
}

/// Files are told by their names; where on this host they lie is nobody's business.
pub(crate) fn without_paths(source: &Path, message: &str) -> String {
    let parent = source.parent().map(|parent| format!("{}/", parent.display()));
    let inside = message.replace(&format!("{}/", source.display()), "");
    match parent.filter(|parent| parent.len() > 1) {
        Some(parent) => inside.replace(&parent, ""),
        None => inside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_without_their_place() {
        let say = |source: &str, message| without_paths(Path::new(source), message);
        assert_eq!(say("/m/qwen", "/m/qwen/config.json: x"), "config.json: x");
        assert_eq!(say("/m/a.gguf", "/m/a.gguf: tensor `b`"), "a.gguf: tensor `b`");
        assert_eq!(say("/m", "/m/config.json: x"), "config.json: x");
    }

    #[test]
    fn a_source_without_weights_has_its_code() {
        let dir = tempfile::tempdir().unwrap();
        let spec = EngineSpec::new(dir.path());
        assert_eq!(plan(&spec).unwrap_err().code, LoadCode::EmptyRepo);
        let gone = EngineSpec::new(dir.path().join("gone"));
        let failure = plan(&gone).unwrap_err();
        assert_eq!(failure.code, LoadCode::RepoNotFound);
        assert_eq!(failure.message, "gone: not found");
    }
}
