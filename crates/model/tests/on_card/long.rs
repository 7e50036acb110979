//! Prompts as long as agents make them.

use model::Capacity;

use super::equalities::ROUNDING;
use super::runner::{Runner, difference};
use super::{card, on_card_with, on_cpu_with};

const LONG: usize = 100_000;
/// As far as a CPU follows in seconds.
const MIDDLE: usize = 8_192;
/// A model without recurrent state, and two with it: V heads tiled and grouped.
const MODELS: [&str; 3] = [
    "crates/model/tests/fixtures/qwen3",
    "crates/model/tests/fixtures/qwen3_5",
    "crates/model/tests/fixtures/qwen3_next",
];

fn capacity(tokens: usize) -> Capacity {
    // Four sequences share the blocks, of which one is used here.
    let kv_blocks = 4 * (tokens / 16 + 1);
    Capacity { max_rows: 2048, max_logit_rows: 8, kv_blocks, block_size: 16, state_slots: 8 }
}

/// The last logits of a prompt of `length` tokens and of some that are decoded behind it.
fn end<B: kernels::Backend>(runner: &mut Runner<B>, length: usize, chunk: usize) -> Vec<f32> {
    let tokens = runner.tokens(30, length);
    let (prompt, rest) = tokens.split_at(length - 8);
    runner.restart(0);
    let mut logits = runner.last(0, prompt, chunk);
    logits.extend(runner.chunked(0, rest, 1));
    logits
}

/// The state behind 100,000 tokens does not tell how they were cut, and where a CPU can follow it
/// is the CPU's.
#[test]
fn long_prompts_end_alike_in_any_chunks_on_a_card() {
    let Some(context) = card() else { return };
    for model in MODELS {
        let mut gpu = on_card_with(&context, model, &capacity(LONG));
        let cpu = end(&mut on_cpu_with(model, &capacity(MIDDLE)), MIDDLE, 512);
        let error = difference(&end(&mut gpu, MIDDLE, 2048), &cpu);
        eprintln!("{model}: the end of {MIDDLE} tokens differs from the CPU's by {error:.1e}");
        assert!(error <= ROUNDING, "{model}: {error} behind {MIDDLE} tokens");
        let whole = end(&mut gpu, LONG, 2048);
        for chunk in [512, 1000] {
            let error = difference(&end(&mut gpu, LONG, chunk), &whole);
            eprintln!(
                "{model}: the end of {LONG} tokens in chunks of {chunk} differs by {error:.1e}"
            );
            assert!(error <= ROUNDING, "{model}: {error} in chunks of {chunk}");
        }
    }
}
