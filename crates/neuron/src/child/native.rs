//! The project's own engine, as the child loads it and the daemon plans it.

use std::path::Path;

use control::{FastPath, LoadPlan, RankPlan};
use engine::{Device, EngineInfo, EngineSpec, LoadError, PrefixCacheInfo, RankBytes, TokenEngine};
use kernels::DeviceFault;

use crate::child::link::{LoadCode, LoadDetails, LoadFailure};
use crate::host::cards;
use crate::host::memory;

const MIB: u64 = 1 << 20;

/// Weights below this fit a core's caches, more or less.
const SMALL_MODEL_BYTES: u64 = 64 << 20;

/// Bytes that a card's driver takes for a process before the engine asks what is free (measured on
/// an H100, docs/cuda).
const CONTEXT_BYTES: u64 = 527 << 20;

/// Loads a model, after a look at whether it fits.
pub fn load(
    spec: &EngineSpec,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn TokenEngine>, LoadFailure> {
    let say = |error| failure(&spec.source, &error);
    let info = engine::plan(spec).map_err(say)?;
    let free = memory::available_bytes();
    // A card is asked by the engine itself, which takes its memory at once and says what is
    // missing.
    if spec.device == Device::Cpu
        && let (needed, Some(free)) = (bytes(&info), free)
        && needed > free
    {
        return Err(does_not_fit(needed, free));
    }
    let threads = spec.threads.or_else(|| Some(threads_for(&info)));
    let engine = engine::load(&EngineSpec { threads, ..spec.clone() }, progress).map_err(say)?;
    Ok(Box::new(engine))
}

/// A thread for each core, but one for a model so small that handing work over costs more than
/// doing it.
fn threads_for(info: &EngineInfo) -> u32 {
    let weights: u64 = info.ranks.iter().map(|rank| rank.weights).sum();
    if weights < SMALL_MODEL_BYTES {
        return 1;
    }
    engine::cores() as u32
}

/// A refusal before a byte is taken.
pub(crate) fn does_not_fit(needed: u64, free: u64) -> LoadFailure {
    // Rounded so that the one is never told to be the other.
    let (needed_mb, free_mb) = (needed.div_ceil(MIB), free / MIB);
    let message = format!(
        "the model needs {needed_mb} MiB and {free_mb} MiB are free: ask for less `context` or \
         `max_running`, for a smaller `quant`, or unload another model"
    );
    LoadFailure::new(LoadCode::DoesNotFit, message).with(LoadDetails::Memory { needed_mb, free_mb })
}

/// What a load would take, and whether that is free now.
pub(crate) fn plan(spec: &EngineSpec) -> Result<LoadPlan, LoadFailure> {
    let free = match spec.device {
        Device::Cpu => memory::available_bytes(),
        Device::Cuda(card) => cards::free_bytes(card),
    };
    let for_engine = |free: u64| free.saturating_sub(CONTEXT_BYTES);
    let memory_bytes = free.filter(|_| spec.device != Device::Cpu).map(for_engine);
    let spec = EngineSpec { memory_bytes, ..spec.clone() };
    let info = engine::plan(&spec).map_err(|error| failure(&spec.source, &error))?;
    let fits = free.is_none_or(|free| bytes(&info) <= free);
    Ok(LoadPlan { free_bytes: free, ..load_plan(&info, fits) })
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
    LoadPlan {
        ranks: ranks.collect(),
        fits,
        quant: Some(info.quant.clone()),
        context: info.context,
        max_running: info.max_running,
        needed_bytes: bytes(info),
        free_bytes: None,
        host_cache_bytes: info.prefix_cache.host_bytes,
        is_on_host: info.device == Device::Cpu,
    }
}

/// Memory of all ranks together, with all that the prefix cache may fill (requirement 64).
pub(crate) fn bytes(info: &EngineInfo) -> u64 {
    let each = |rank: &RankBytes| [rank.weights, rank.kv, rank.state, rank.workspace];
    info.ranks.iter().flat_map(each).fold(info.prefix_cache.host_bytes, u64::saturating_add)
}

/// What an operator should know to be on; logits only where something is wrong with them.
pub(crate) fn fast_paths(info: &EngineInfo) -> Vec<FastPath> {
    let unsound = info.unsound.clone();
    let logits = unsound.map(|detail| FastPath { name: "logits".to_owned(), on: false, detail });
    std::iter::once(prefix_cache(&info.prefix_cache)).chain(logits).collect()
}

fn prefix_cache(info: &PrefixCacheInfo) -> FastPath {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let detail = info.off.clone().unwrap_or_else(|| {
        let (device, host) = (mib(info.device_bytes), mib(info.host_bytes));
        format!("{device} MiB of blocks and states on the device, {host} MiB on the host")
    });
    FastPath { name: "prefix_cache".to_owned(), on: info.off.is_none(), detail }
}

fn failure(source: &Path, error: &LoadError) -> LoadFailure {
    let refused = |code| LoadFailure::new(code, without_paths(source, &error.to_string()));
    match error {
        LoadError::Model(error) => model_failure(source, error),
        LoadError::BadSpec { .. } => refused(LoadCode::BadRequest),
        LoadError::Device(DeviceFault::OutOfMemory { .. }) => refused(LoadCode::DoesNotFit),
        LoadError::Device(DeviceFault::NoDevice(_) | DeviceFault::Unusable(_)) => {
            refused(LoadCode::CudaUnavailable)
        }
        LoadError::Device(DeviceFault::Failed { .. }) => refused(LoadCode::EngineFailed),
        LoadError::Fault(_) => refused(LoadCode::EngineFailed),
    }
}

/// A model's error in the control plane's terms.
pub(crate) fn model_failure(source: &Path, error: &model::Error) -> LoadFailure {
    let message = without_paths(source, &error.to_string());
    LoadFailure { details: details(error).map(Box::new), ..LoadFailure::new(code(error), message) }
}

/// What is wrong with a model's files, for programs.
fn details(error: &model::Error) -> Option<LoadDetails> {
    use model::Error as E;
    let in_file = |file: &Path, item: &str, reason: String| {
        let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(LoadDetails::File { file, item: item.to_owned(), reason })
    };
    match error {
        E::BadFile { file, item, reason } => in_file(file, item, reason.clone()),
        E::Refused { file, reason } => in_file(file, "file", reason.clone()),
        E::BadConfig { file, key, expected, found } => {
            in_file(file, key, format!("expected {expected}, found {found}"))
        }
        E::Missing { file, item } => in_file(file, item, "is missing".to_owned()),
        E::NotFound { file } => in_file(file, "file", "not found".to_owned()),
        E::UnsupportedArchitecture { file, found, known } => {
            let reason = format!("`{found}` is not supported; supported: {known}");
            in_file(file, "architecture", reason)
        }
        E::Requantised { found, .. } => {
            let found = found.name().to_owned();
            Some(LoadDetails::Quant { available: vec![found.clone()], nearest: Some(found) })
        }
        _ => None,
    }
}

fn code(error: &model::Error) -> LoadCode {
    match error {
        model::Error::NotFound { .. } => LoadCode::RepoNotFound,
        model::Error::NoWeights { .. } => LoadCode::EmptyRepo,
        model::Error::UnsupportedArchitecture { .. } => LoadCode::UnsupportedArchitecture,
        model::Error::Requantised { .. } => LoadCode::QuantNotFound,
        model::Error::Indivisible { .. } => LoadCode::TensorParallelIndivisible,
        _ => LoadCode::BadModelFile,
    }
}

/// Files are told by their names; where on this host they lie is nobody's business.
fn without_paths(source: &Path, message: &str) -> String {
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
