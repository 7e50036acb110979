//! From a path to an engine that runs.

use kernels::Backend;
use kernels::cpu::{Cpu, cores};
use kernels::cuda::{Context, Cuda, StepCapacity};
use model::comm::{Comm, LocalGroup};
use model::{Recipe, Shard, Source};
use scheduler::Scheduler;

use crate::contract::{Device, EngineInfo, EngineSpec};
use crate::core::Engine;
use crate::error::LoadError;
use crate::executor::Executor;
use crate::pace::Pace;
use crate::probe;
use crate::rank::Rank;
use crate::room::{Room, room};

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
        blocks: room.limits.context.div_ceil(room.limits.block_size) as usize,
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
