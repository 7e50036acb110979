//! A step takes no memory: all of it was taken at load, or when the largest step before came.

use std::path::Path;

use kernels::check::allocations::Counting;
use kernels::cpu::Cpu;
use kernels::{SequenceRows, StepInputs};
use model::comm::Comm;
use model::{Capacity, Shard, Source};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Dense, hybrid, and both with experts.
const MODELS: [&str; 5] = ["qwen3", "qwen3_5", "qwen3_moe", "qwen3_5_moe", "qwen3_next"];

/// `rows` tokens for each of two sequences, at position `start`.
fn inputs(start: usize, rows: usize) -> StepInputs {
    let sequence = |at: usize| SequenceRows {
        first_row: at * rows,
        rows,
        start,
        blocks: (0..4).map(|block| 4 * at as u32 + block).collect(),
        slot: at,
    };
    StepInputs {
        tokens: (0..2 * rows).map(|row| (7 * (start + row) % 50) as u32).collect(),
        sequences: (0..2).map(sequence).collect(),
        logit_rows: (0..2).map(|at| (at + 1) * rows - 1).collect(),
        ahead: false,
    }
}

/// Tests of one binary share the counter, so this is the only one.
#[test]
fn decoding_takes_no_memory() {
    let before = ALLOCATOR.taken();
    drop(std::hint::black_box(Vec::<u8>::with_capacity(100)));
    assert_eq!(ALLOCATOR.taken(), before + 1, "the counter counts");
    for name in MODELS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let source = Source::open(&path).expect("the model opens");
        // One thread: each has a little memory of its own, which comes with its first tasks, and a
        // worker may come late.
        let mut backend = Cpu::new(1);
        let decoder = model::arch::load(&mut backend, &source, Shard::SOLO).expect("it loads");
        let capacity = Capacity {
            max_rows: 40,
            max_logit_rows: 2,
            kv_blocks: 8,
            block_size: 16,
            state_slots: 2,
        };
        let mut cache = decoder.cache(&mut backend, &capacity).expect("caches");
        let mut scratch = decoder.scratch(&mut backend, &capacity).expect("scratch");
        let mut step = |start, rows| {
            let inputs = inputs(start, rows);
            let before = ALLOCATOR.taken();
            decoder.forward(&mut backend, &Comm::Solo, &mut cache, &mut scratch, inputs);
            ALLOCATOR.taken() - before
        };
        step(0, 20);
        step(20, 1);
        let taken: Vec<usize> = (21..60).map(|at| step(at, 1)).collect();
        assert_eq!(taken, [0; 39], "{name}");
    }
}
