//! Models on a card against the same models on the CPU, and against themselves: equalities E1, E3,
//! E4 and E6 by logits, replays against launches bit for bit, and prompts of 100,000 tokens.
//!
//! Without a card each test says loudly that it has shown nothing; with `REQUIRE_GPU` set it fails.
//! `REPOSITORY` names the place of the models on a machine other than the one that compiled this.

mod equalities;
mod long;
mod runner;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::cpu::Cpu;
use kernels::cuda::{Context, Cuda, StepCapacity};
use model::Capacity;

use runner::{CAPACITY, Runner};

/// A small trained model, and the same in 8 bits.
const FLOAT: &str = "models/sprout";
const QUANTISED: &str = "models/sprout/sprout-Q8_0.gguf";

/// Tiny random checkpoints, and a small trained model in two formats.
const MODELS: [&str; 7] = [
    "crates/model/tests/fixtures/qwen3",
    "crates/model/tests/fixtures/qwen3_5",
    FLOAT,
    QUANTISED,
    "crates/model/tests/fixtures/qwen3_moe",
    "crates/model/tests/fixtures/qwen3_5_moe",
    "crates/model/tests/fixtures/qwen3_next",
];

fn place(model: &str) -> PathBuf {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = std::env::var_os("REPOSITORY").map_or(compiled, PathBuf::from);
    root.join(model)
}

fn card() -> Option<Arc<Context>> {
    match Context::open(0) {
        Ok(context) => Some(context),
        Err(fault) if std::env::var_os("REQUIRE_GPU").is_some() => panic!("{fault}"),
        Err(fault) => {
            eprintln!("SKIPPED, nothing was tested: {fault}");
            None
        }
    }
}

fn on_card(context: &Arc<Context>, model: &str) -> Runner<Cuda> {
    on_card_with(context, &place(model), &CAPACITY)
}

fn on_card_with(context: &Arc<Context>, model: &Path, capacity: &Capacity) -> Runner<Cuda> {
    let step = StepCapacity {
        rows: capacity.max_rows,
        sequences: capacity.max_logit_rows,
        blocks: capacity.kv_blocks,
    };
    Runner::new(Cuda::new(context, step), model, capacity)
}

fn on_cpu(model: &str) -> Runner<Cpu> {
    Runner::new(Cpu::new(2), &place(model), &CAPACITY)
}
