//! How large an engine is: context, blocks, state slots, and what they take.

use kernels::cpu::Cpu;
use kernels::cuda::Cuda;
use model::{Capacity, ModelConfig, Shard, Source, footprint, held_bytes};
use scheduler::{HostLimits, Limits};

use crate::cache::PrefixCacheInfo;
use crate::contract::{Device, EngineInfo, EngineSpec, RankBytes};
use crate::error::LoadError;

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

/// The sizes of an engine.
pub(crate) struct Room {
    pub(crate) info: EngineInfo,
    pub(crate) limits: Limits,
    pub(crate) capacity: Capacity,
}

/// What an engine of a model has room for, by what is asked for and by what the device has.
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
            let source = Source::open(&spec.source).expect("the fixture opens");
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
            let source = Source::open(&spec.source).expect("the fixture opens");
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
