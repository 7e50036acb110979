//! From a path to an engine that runs.

use kernels::cpu::{Cpu, cores};
use model::comm::{Comm, LocalGroup};
use model::{Capacity, ModelConfig, Recipe, Shard, Source, footprint, held_bytes};
use scheduler::{HostLimits, Limits, Scheduler};

use crate::cache::PrefixCacheInfo;
use crate::contract::{EngineInfo, EngineSpec, Fault, RankBytes};
use crate::core::Engine;
use crate::executor::Executor;
use crate::pace::Pace;
use crate::probe;
use crate::rank::Rank;

/// Tokens of a KV block.
const BLOCK_SIZE: u32 = 16;
/// Requests that may wait before new ones are refused.
const MAX_WAITING: u32 = 1024;
/// Recurrent states that the prefix cache keeps for each request that may run.
const CHECKPOINTS_PER_REQUEST: u32 = 4;
/// Bytes that keys and values take at most when the caller does not say how many blocks.
const DEFAULT_KV_BYTES: u64 = 4 << 30;

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The model's files.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The caller's numbers.
    #[error("{item}: {reason}")]
    BadSpec {
        /// The field.
        item: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The model did not survive its first steps.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What a load would take, without taking it.
pub fn plan(spec: &EngineSpec) -> Result<EngineInfo, LoadError> {
    let source = open(spec)?;
    Ok(room(spec, &source)?.info)
}

/// The model in the format that is asked for.
fn open(spec: &EngineSpec) -> Result<Source, LoadError> {
    let source = Source::open(&spec.source)?;
    let Some(name) = &spec.quant else { return Ok(source) };
    let Some(recipe) = Recipe::from_name(name) else {
        let known: Vec<_> = Recipe::all().map(Recipe::name).collect();
        let reason = format!("expected one of {}", known.join(", "));
        return Err(LoadError::BadSpec { item: "quant", reason });
    };
    Ok(source.quantised(recipe, spec.threads.unwrap_or(1) as usize)?)
}

/// Loads a model on the CPU. `progress` hears the bytes in place and the bytes in all.
pub fn load(spec: &EngineSpec, progress: &mut dyn FnMut(u64, u64)) -> Result<Engine, LoadError> {
    let source = open(spec)?;
    let mut room = room(spec, &source)?;
    let mut executor = executor(spec, &source, &room, progress)?;
    probe::settle(&mut executor, &mut room.info, &mut room.limits)?;
    let scheduler = Scheduler::new(room.limits);
    Ok(Engine::new(room.info, scheduler, executor, Pace::new(spec.stall_ms)))
}

/// All ranks with their weights in place.
pub(crate) fn executor(
    spec: &EngineSpec,
    source: &Source,
    room: &Room,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Executor<Cpu>, LoadError> {
    let world_size = spec.world_size as usize;
    let total: u64 = room.info.ranks.iter().map(|rank| rank.weights).sum();
    progress(0, total);
    let mut comms: Vec<Comm> = match world_size {
        1 => vec![Comm::Solo],
        n => LocalGroup::ranks(n).into_iter().map(Comm::Local).collect(),
    };
    let threads = spec.threads.unwrap_or(1).max(1) as usize;
    let mut ranks = Vec::new();
    let mut done = 0;
    for (rank, comm) in comms.drain(..).enumerate() {
        let backend = backend(rank, (threads / world_size).max(1), world_size);
        let shard = Shard { rank, world_size };
        ranks.push(Rank::load(backend, source, shard, comm, &room.capacity)?);
        done += room.info.ranks[rank].weights;
        progress(done, total);
    }
    Ok(Executor::new(ranks))
}

/// The physical cores that this process may use: more threads than that gain a rank nothing.
pub fn cores() -> usize {
    cores::physical().len()
}

/// A rank's device. Where the ranks together take every core, each thread is bound to one: nobody
/// would gain by moving. With fewer threads, the system finds the cores that are free.
fn backend(rank: usize, threads: usize, world_size: usize) -> Cpu {
    let cores = cores::physical();
    if threads * world_size == cores.len() {
        Cpu::bound(&cores[rank * threads..(rank + 1) * threads])
    } else {
        Cpu::new(threads)
    }
}

/// The sizes of an engine.
pub(crate) struct Room {
    pub(crate) info: EngineInfo,
    pub(crate) limits: Limits,
    capacity: Capacity,
}

pub(crate) fn room(spec: &EngineSpec, source: &Source) -> Result<Room, LoadError> {
    let bad = |item, reason: &str| Err(LoadError::BadSpec { item, reason: reason.to_owned() });
    match spec {
        EngineSpec { max_running: 0, .. } => return bad("max_running", "must be at least 1"),
        EngineSpec { token_budget: 0, .. } => return bad("token_budget", "must be at least 1"),
        EngineSpec { world_size: 0, .. } => return bad("world_size", "must be at least 1"),
        EngineSpec { context: Some(0), .. } => return bad("context", "must be at least 1"),
        EngineSpec { kv_blocks: Some(0), .. } => return bad("kv_blocks", "must be at least 1"),
        _ => {}
    }
    let config = source.config();
    let (context, kv_blocks) = context_and_blocks(spec, config)?;
    let recurrent = config.delta.is_some();
    let checkpoints = match spec.checkpoints {
        _ if !recurrent || !spec.prefix_cache => 0,
        Some(checkpoints) => checkpoints,
        None => spec.max_running.saturating_mul(CHECKPOINTS_PER_REQUEST),
    };
    let capacity = Capacity {
        max_rows: spec.token_budget as usize,
        max_logit_rows: spec.max_running.min(spec.token_budget) as usize,
        kv_blocks: kv_blocks as usize,
        block_size: BLOCK_SIZE as usize,
        state_slots: if recurrent { spec.max_running as usize + checkpoints as usize } else { 0 },
    };
    let ranks = (0..spec.world_size as usize).map(|rank| {
        let shard = Shard { rank, world_size: spec.world_size as usize };
        let print = footprint(config, &shard, &capacity)?;
        Ok(RankBytes {
            weights: held_bytes::<Cpu>(source, &shard)?,
            kv: print.kv_bytes,
            state: print.state_bytes,
            workspace: print.workspace_bytes,
        })
    });
    let ranks: Vec<RankBytes> = ranks.collect::<Result<_, model::Error>>()?;
    let limits = Limits {
        token_budget: spec.token_budget,
        max_running: spec.max_running,
        max_waiting: MAX_WAITING,
        context,
        block_size: BLOCK_SIZE,
        kv_blocks,
        state_slots: recurrent.then_some(spec.max_running),
        prefix_cache: spec.prefix_cache,
        checkpoint_slots: checkpoints,
        host: host_limits(spec, &ranks, &capacity),
    };
    let info = EngineInfo {
        architecture: config.architecture.gguf_name().to_owned(),
        quant: source.format_name()?.to_owned(),
        vocab_size: config.vocab_size as u32,
        context,
        max_running: spec.max_running,
        block_size: BLOCK_SIZE,
        kv_blocks,
        state_slots: limits.state_slots.unwrap_or(0),
        checkpoint_slots: checkpoints,
        prefix_cache: prefix_cache_info(&limits, &ranks),
        ranks,
    };
    Ok(Room { info, limits, capacity })
}

/// What one block and one state take of the host's budget.
fn host_limits(spec: &EngineSpec, ranks: &[RankBytes], capacity: &Capacity) -> HostLimits {
    let each = |all: fn(&RankBytes) -> u64, count: usize| {
        ranks.iter().map(all).sum::<u64>() / (count as u64).max(1)
    };
    HostLimits {
        budget_bytes: if spec.prefix_cache { spec.host_cache_bytes } else { 0 },
        block_bytes: each(|rank| rank.kv, capacity.kv_blocks),
        state_bytes: each(|rank| rank.state, capacity.state_slots),
    }
}

fn prefix_cache_info(limits: &Limits, ranks: &[RankBytes]) -> PrefixCacheInfo {
    let off = match limits {
        Limits { prefix_cache: false, .. } => Some("it was not asked for".to_owned()),
        _ => None,
    };
    let states = u64::from(limits.checkpoint_slots) * limits.host.state_bytes;
    let blocks: u64 = ranks.iter().map(|rank| rank.kv).sum();
    let host_bytes = limits.host.budget_bytes;
    PrefixCacheInfo { off, device_bytes: blocks + states, host_bytes }
}

/// Without numbers from the caller, the model's own context and a full house, as far as
/// [`DEFAULT_KV_BYTES`] go; the context shrinks only when one request alone would exceed that.
fn context_and_blocks(spec: &EngineSpec, config: &ModelConfig) -> Result<(u32, u32), LoadError> {
    let model = config.context_length as u32;
    let context = spec.context.unwrap_or(model);
    if context > model {
        let reason = format!("{context} exceeds the model's {model} tokens");
        return Err(LoadError::BadSpec { item: "context", reason });
    }
    if let Some(blocks) = spec.kv_blocks {
        return Ok((context.min(blocks.saturating_mul(BLOCK_SIZE)), blocks));
    }
    let one_block = Capacity {
        max_rows: 0,
        max_logit_rows: 0,
        kv_blocks: 1,
        block_size: BLOCK_SIZE as usize,
        state_slots: 0,
    };
    let block_bytes = footprint(config, &Shard::SOLO, &one_block)?.kv_bytes.max(1);
    let affordable = (DEFAULT_KV_BYTES / block_bytes).max(1);
    let wanted = u64::from(context.div_ceil(BLOCK_SIZE)) * u64::from(spec.max_running);
    let mut blocks = wanted.min(affordable);
    if spec.context.is_some() {
        // The caller insists on this context: one request of it must fit.
        blocks = blocks.max(u64::from(context.div_ceil(BLOCK_SIZE)));
    }
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    Ok((context.min(blocks.saturating_mul(BLOCK_SIZE)), blocks))
}
