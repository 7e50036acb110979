//! From a path to an engine that runs.

use kernels::cpu::{Cpu, cores};
use kernels::cuda::{Context, Cuda, StepCapacity};
use kernels::{Backend, DeviceFault};
use model::comm::{Comm, LocalGroup};
use model::{Capacity, ModelConfig, Recipe, Shard, Source, footprint, held_bytes};
use scheduler::{HostLimits, Limits, Scheduler};

use crate::cache::PrefixCacheInfo;
use crate::contract::{Device, EngineInfo, EngineSpec, Fault, RankBytes};
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
/// Bytes that keys and values take at most in main memory, which belongs to others too, when the
/// caller does not say how many blocks.
const DEFAULT_KV_BYTES: u64 = 4 << 30;
/// Bytes of main memory for each token of the vocabulary: what it spells, in the order in which
/// masks are made.
const SPELLING_BYTES: u64 = 480;
/// Bytes of a card that stay free: for recorded steps and surprises.
const CARD_RESERVE_BYTES: u64 = 512 << 20;
/// Bytes of a card that every model takes: the driver's for a process (527 MiB on an H100), decoded
/// weights (192 MiB) and what the library for many rows works in (32 MiB).
const CARD_OWN_BYTES: u64 = 751 << 20;

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The model's files.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceFault),
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

/// Loads a model. `progress` hears the bytes in place and the bytes in all.
pub fn load(spec: &EngineSpec, progress: &mut dyn FnMut(u64, u64)) -> Result<Engine, LoadError> {
    let source = open(spec)?;
    match spec.device {
        Device::Cpu => {
            let room = room(spec, &source)?;
            let executor = executor(spec, &source, &room, progress)?;
            engine(spec, executor, room)
        }
        Device::Cuda(ordinal) => on_card(spec, &source, ordinal, progress),
    }
}

fn on_card(
    spec: &EngineSpec,
    source: &Source,
    ordinal: u32,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Engine, LoadError> {
    if spec.world_size != 1 {
        let reason = "several ranks on cards are not built yet: ask for 1, or for the CPU";
        return Err(LoadError::BadSpec { item: "world_size", reason: reason.to_owned() });
    }
    let context = Context::open(ordinal)?;
    let memory = spec.memory_bytes.unwrap_or_else(|| context.memory().0);
    let room = room(&EngineSpec { memory_bytes: Some(memory), ..spec.clone() }, source)?;
    let capacity = StepCapacity {
        rows: room.capacity.max_rows,
        sequences: room.limits.max_running as usize,
        blocks: room.limits.context.div_ceil(BLOCK_SIZE) as usize,
    };
    let executor = ranks(source, &room, progress, |_| Cuda::new(&context, capacity))?;
    engine(spec, executor, room)
}

/// An engine whose prefix cache has proved itself.
fn engine<B: Backend>(
    spec: &EngineSpec,
    mut executor: Executor<B>,
    mut room: Room,
) -> Result<Engine, LoadError> {
    probe::settle(&mut executor, &mut room.info, &mut room.limits)?;
    let (scheduler, pace) = (Scheduler::new(room.limits), Pace::new(spec.stall_ms));
    Ok(Engine::new(room.info, scheduler, Box::new(executor), pace))
}

/// All ranks on the CPU with their weights in place.
pub(crate) fn executor(
    spec: &EngineSpec,
    source: &Source,
    room: &Room,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Executor<Cpu>, LoadError> {
    let world_size = spec.world_size as usize;
    let threads = (spec.threads.unwrap_or(1) as usize / world_size).max(1);
    ranks(source, room, progress, |rank| backend(rank, threads, world_size))
}

/// Every rank on a device of its own.
fn ranks<B: Backend>(
    source: &Source,
    room: &Room,
    progress: &mut dyn FnMut(u64, u64),
    mut device: impl FnMut(usize) -> B,
) -> Result<Executor<B>, LoadError> {
    let world_size = room.info.ranks.len();
    let total: u64 = room.info.ranks.iter().map(|rank| rank.weights).sum();
    progress(0, total);
    let comms: Vec<Comm> = match world_size {
        1 => vec![Comm::Solo],
        n => LocalGroup::ranks(n).into_iter().map(Comm::Local).collect(),
    };
    let mut ranks = Vec::new();
    let mut done = 0;
    for (rank, comm) in comms.into_iter().enumerate() {
        let shard = Shard { rank, world_size };
        ranks.push(Rank::load(device(rank), source, shard, comm, &room.capacity)?);
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
    let recurrent = config.delta.is_some();
    let checkpoints = match spec.checkpoints {
        _ if !recurrent || !spec.prefix_cache => 0,
        Some(checkpoints) => checkpoints,
        None => spec.max_running.saturating_mul(CHECKPOINTS_PER_REQUEST),
    };
    let mut capacity = Capacity {
        max_rows: spec.token_budget as usize,
        max_logit_rows: spec.max_running.min(spec.token_budget) as usize,
        kv_blocks: 0,
        block_size: BLOCK_SIZE as usize,
        state_slots: if recurrent { spec.max_running as usize + checkpoints as usize } else { 0 },
    };
    let budget = kv_budget(spec, source, &capacity)?;
    let (context, kv_blocks) = context_and_blocks(spec, config, budget)?;
    capacity.kv_blocks = kv_blocks as usize;
    let ranks = (0..spec.world_size as usize).map(|rank| {
        let shard = Shard { rank, world_size: spec.world_size as usize };
        let print = footprint(config, &shard, &capacity)?;
        Ok(RankBytes {
            weights: weight_bytes(spec.device, source, &shard)?,
            kv: print.kv_bytes,
            state: print.state_bytes,
            workspace: print.workspace_bytes + beside_bytes(spec, rank, config),
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
        device: spec.device,
        vocab_size: config.vocab_size as u32,
        context,
        max_running: spec.max_running,
        block_size: BLOCK_SIZE,
        kv_blocks,
        state_slots: limits.state_slots.unwrap_or(0),
        checkpoint_slots: checkpoints,
        prefix_cache: prefix_cache_info(&limits, &ranks),
        unsound: None,
        ranks,
    };
    Ok(Room { info, limits, capacity })
}

/// What a rank's device holds beside the model: what the tokens spell, which the first rank stands
/// for; on a card, where that is no matter, the driver's memory and that of the operations.
fn beside_bytes(spec: &EngineSpec, rank: usize, config: &ModelConfig) -> u64 {
    match (spec.device, rank) {
        (Device::Cpu, 0) => config.vocab_size as u64 * SPELLING_BYTES,
        (Device::Cpu, _) => 0,
        (Device::Cuda(_), _) => CARD_OWN_BYTES + spec.token_budget as u64 * card_row_bytes(config),
    }
}

/// What operations on a card keep of a row: the widest operand in halves with the means of every 32
/// columns, the normed row, and the chunks of the gated delta rule.
fn card_row_bytes(config: &ModelConfig) -> u64 {
    let operand = config.ffn.max(config.hidden) as u64 * 17 / 8;
    let chunks = config.delta.as_ref().map_or(0, |delta| {
        // Queries and keys; values and two triangles of 64 columns: halves.
        4 * delta.key_heads * delta.key_dim + 2 * delta.value_heads * (delta.value_dim + 128)
    });
    operand + 4 * config.hidden as u64 + chunks as u64
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

/// Bytes of a rank's weights, as its device keeps them.
fn weight_bytes(device: Device, source: &Source, shard: &Shard) -> Result<u64, model::Error> {
    match device {
        Device::Cpu => held_bytes::<Cpu>(source, shard),
        Device::Cuda(_) => held_bytes::<Cuda>(source, shard),
    }
}

/// Bytes for keys and values when the caller does not say how many blocks: on a card, all that
/// nothing else needs.
fn kv_budget(
    spec: &EngineSpec,
    source: &Source,
    without_blocks: &Capacity,
) -> Result<u64, LoadError> {
    let (Device::Cuda(_), Some(memory)) = (spec.device, spec.memory_bytes) else {
        return Ok(DEFAULT_KV_BYTES);
    };
    let print = footprint(source.config(), &Shard::SOLO, without_blocks)?;
    let weights = weight_bytes(spec.device, source, &Shard::SOLO)?;
    // The driver's part is counted though `memory` is what it left: as much more stays free.
    let workspace = print.workspace_bytes + beside_bytes(spec, 0, source.config());
    let others = weights + print.state_bytes + workspace + CARD_RESERVE_BYTES;
    Ok(memory.saturating_sub(others))
}

/// Without numbers from the caller, the model's own context and a full house, as far as
/// `kv_budget` bytes go; the context shrinks only when one request alone would exceed that.
fn context_and_blocks(
    spec: &EngineSpec,
    config: &ModelConfig,
    kv_budget: u64,
) -> Result<(u32, u32), LoadError> {
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
    let affordable = (kv_budget / block_bytes).max(1);
    let wanted = u64::from(context.div_ceil(BLOCK_SIZE)) * u64::from(spec.max_running);
    let mut blocks = wanted.min(affordable);
    if spec.context.is_some() {
        // The caller insists on this context: one request of it must fit.
        blocks = blocks.max(u64::from(context.div_ceil(BLOCK_SIZE)));
    }
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    Ok((context.min(blocks.saturating_mul(BLOCK_SIZE)), blocks))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn spec(model: &str) -> EngineSpec {
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
        EngineSpec { context: Some(256), ..EngineSpec::new(fixtures.join(model)) }
    }

    /// What the plan says of a block and of a state is what a backend keeps of them, so that
    /// budgets of bytes are kept.
    #[test]
    fn a_block_and_a_state_take_what_was_planned() {
        for (model, world_size) in [("qwen3", 1), ("qwen3_5", 1), ("qwen3_5", 2)] {
            let spec = EngineSpec { world_size, ..spec(model) };
            let source = open(&spec).expect("the fixture opens");
            let room = room(&spec, &source).expect("there is room");
            let (mut blocks, mut states) = (0, 0);
            for rank in 0..world_size as usize {
                let shard = Shard { rank, world_size: world_size as usize };
                let mut cpu = Cpu::new(1);
                let decoder = model::arch::load(&mut cpu, &source, shard).expect("it loads");
                let cache = decoder.cache(&mut cpu, &room.capacity).expect("there is room");
                blocks += cache.block_bytes(&cpu) as u64;
                states += cache.state_bytes(&cpu) as u64;
            }
            let planned = room.limits.host;
            assert_eq!((planned.block_bytes, planned.state_bytes), (blocks, states), "{model}");
        }
    }

    /// Keys and values have two bytes on either: what is free on a card holds as many blocks.
    #[test]
    fn a_card_is_planned_with_as_many_bytes_a_block() {
        let on = |device, kv_blocks, memory_bytes| {
            let spec = EngineSpec { device, kv_blocks, memory_bytes, ..spec("qwen3_5") };
            let source = open(&spec).expect("the fixture opens");
            room(&spec, &source).expect("there is room").info
        };
        let (cpu, card) = (on(Device::Cpu, Some(64), None), on(Device::Cuda(0), Some(64), None));
        assert_eq!(cpu.ranks[0].kv, card.ranks[0].kv);
        // A quarter of a full house has room: no more than that is planned.
        let RankBytes { weights, kv, state, workspace } = card.ranks[0];
        let free = CARD_RESERVE_BYTES + weights + kv + state + workspace;
        assert_eq!(on(Device::Cuda(0), None, Some(free)).ranks[0], card.ranks[0]);
    }
}
