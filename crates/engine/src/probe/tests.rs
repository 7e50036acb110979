//! The proof on caches that work, and on some that do not.

use std::path::PathBuf;

use kernels::cpu::Cpu;
use model::Source;

use super::*;
use crate::contract::EngineSpec;
use crate::load::executor;
use crate::room::{Room, room};

/// Ranks that leave out some copies, as a broken device would.
struct Forgetful {
    executor: Executor<Cpu>,
    forgets: fn(&Copy) -> bool,
    forgotten: u32,
}

impl Steps for Forgetful {
    fn forward(&mut self, work: &StepWork) -> Result<(), Fault> {
        let mut work = work.clone();
        let all = work.copies.len();
        work.copies.retain(|copy| !(self.forgets)(copy));
        self.forgotten += (all - work.copies.len()) as u32;
        Execute::forward(&mut self.executor, &work)
    }

    fn logits(&mut self, rows: usize) -> Vec<f32> {
        self.executor.logits(rows)
    }
}

fn spec(model: &str) -> EngineSpec {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let (context, host_cache_bytes) = (Some(256), 1 << 20);
    EngineSpec {
        context,
        max_running: 2,
        host_cache_bytes,
        ..EngineSpec::new(fixtures.join(model))
    }
}

/// Why the cache was turned off, and how many copies were left out.
fn settled(spec: &EngineSpec, forgets: fn(&Copy) -> bool) -> (Option<String>, u32) {
    let source = Source::open(&spec.source).expect("the fixture opens");
    let mut room: Room = room(spec, &source).expect("it has room");
    let executor = executor(spec, &source, &room, &mut |_, _| {}).expect("it loads");
    let mut steps = Forgetful { executor, forgets, forgotten: 0 };
    settle(&mut steps, &mut room.info, &mut room.limits).expect("no fault");
    assert_eq!(room.limits.prefix_cache, room.info.prefix_cache.off.is_none());
    (room.info.prefix_cache.off, steps.forgotten)
}

#[test]
fn a_cache_that_works_is_used() {
    for model in ["qwen3", "qwen3_5", "qwen3_moe", "qwen3_5_moe", "qwen3_next"] {
        for token_budget in [3, 16, 512] {
            let spec = EngineSpec { token_budget, ..spec(model) };
            assert_eq!(settled(&spec, |_| false), (None, 0), "{model}");
            let without_host = EngineSpec { host_cache_bytes: 0, ..spec };
            assert_eq!(settled(&without_host, |_| false), (None, 0), "{model}");
        }
    }
    let shared = EngineSpec { world_size: 2, ..spec("qwen3_5") };
    assert_eq!(settled(&shared, |_| false), (None, 0));
}

/// A device that does not make one kind of copy loses the cache, and says which tier it was.
#[test]
fn a_device_that_forgets_a_copy_loses_the_cache() {
    let off = |model: &str, forgets| {
        let (off, forgotten) = settled(&spec(model), forgets);
        assert!(forgotten > 0, "{model}: nothing was left out");
        off.unwrap_or_else(|| panic!("{model}: {forgotten} copies were missed by nobody"))
    };
    let state = off("qwen3_5", |copy| matches!(copy, Copy::State { .. }));
    assert!(state.contains("with 21 tokens out of the cache on the device"), "{state}");
    let block = off("qwen3_5", |copy| matches!(copy, Copy::Block { .. }));
    assert!(block.contains("on the device"), "{block}");
    for model in ["qwen3", "qwen3_5"] {
        let block = off(model, |copy| matches!(copy, Copy::LoadBlock { .. }));
        assert!(block.contains("on the host"), "{block}");
    }
    let state = off("qwen3_5", |copy| matches!(copy, Copy::LoadState { .. }));
    assert!(state.contains("with 21 tokens out of the cache on the host"), "{state}");
}

/// A device whose numbers break.
struct Broken(Executor<Cpu>, f32);

impl Steps for Broken {
    fn forward(&mut self, work: &StepWork) -> Result<(), Fault> {
        Execute::forward(&mut self.0, work)
    }

    fn logits(&mut self, rows: usize) -> Vec<f32> {
        let mut logits = self.0.logits(rows);
        logits.iter_mut().skip(3).step_by(100).for_each(|logit| *logit = self.1);
        logits
    }
}

/// Requirement 54: whether the prefix cache is on or off, and however little room there is.
#[test]
fn logits_that_are_no_numbers_are_seen_at_load() {
    let spec = EngineSpec { kv_blocks: Some(1), ..spec("qwen3_5") };
    for spec in [spec.clone(), EngineSpec { prefix_cache: false, kv_blocks: None, ..spec }] {
        let source = Source::open(&spec.source).expect("the fixture opens");
        for (value, sound) in [(f32::NAN, false), (f32::INFINITY, false), (-1e9, true)] {
            let mut room: Room = room(&spec, &source).expect("it has room");
            let executor = executor(&spec, &source, &room, &mut |_, _| {}).expect("it loads");
            settle(&mut Broken(executor, value), &mut room.info, &mut room.limits).expect("none");
            assert_eq!(room.info.unsound.is_none(), sound, "{value}: {:?}", room.info.unsound);
        }
    }
}

#[test]
fn a_cache_without_room_says_so() {
    let (off, _) = settled(&EngineSpec { checkpoints: Some(0), ..spec("qwen3_5") }, |_| false);
    assert!(off.expect("it is off").contains("`checkpoints` is 0"));
    let (off, _) = settled(&EngineSpec { kv_blocks: Some(1), ..spec("qwen3") }, |_| false);
    assert!(off.expect("it is off").contains("fewer than 2 KV blocks"));
    let (off, _) = settled(&EngineSpec { prefix_cache: false, ..spec("qwen3") }, |_| false);
    assert!(off.expect("it is off").contains("not asked for"));
}
