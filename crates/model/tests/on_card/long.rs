//! Prompts as long as agents make them.

use std::path::Path;

use kernels::cpu::Cpu;
use kernels::cuda::Cuda;
use model::{Capacity, Recipe, write_random};

use super::equalities::ROUNDING;
use super::runner::{Runner, difference};
use super::{card, on_card_with, place};

const LONG: usize = 100_000;
/// As far as a CPU follows in a minute.
const MIDDLE: usize = 8_192;
/// A model without recurrent state, and two with it: V heads tiled and grouped.
const OTHERS: [&str; 3] = [
    "crates/model/tests/fixtures/qwen3",
    "crates/model/tests/fixtures/qwen3_5",
    "crates/model/tests/fixtures/qwen3_next",
];

/// The sizes of a published hybrid of 0.8 billion weights, for which the kernels of long prompts
/// are made; smaller heads take others.
const SHAPE: &str = r#"{
    "model_type": "qwen3_5_text", "num_hidden_layers": 24, "hidden_size": 1024,
    "intermediate_size": 3584, "num_attention_heads": 8, "num_key_value_heads": 2,
    "head_dim": 256, "vocab_size": 248320, "tie_word_embeddings": true,
    "full_attention_interval": 4, "attn_output_gate": true, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
    "linear_value_head_dim": 128, "rms_norm_eps": 1e-6, "max_position_embeddings": 131072,
    "rope_parameters": {
        "mrope_interleaved": true, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25,
        "rope_theta": 1e7, "rope_type": "default"
    }
}"#;

fn capacity(tokens: usize) -> Capacity {
    // Four sequences share the blocks, of which one is used here.
    let kv_blocks = 4 * (tokens / 16 + 1);
    Capacity { max_rows: 2048, max_logit_rows: 8, kv_blocks, block_size: 16, state_slots: 8 }
}

/// A model on all cores of this machine.
fn on_all_cores(model: &Path, capacity: &Capacity) -> Runner<Cpu> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    Runner::new(Cpu::new(cores), model, capacity)
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

/// The end of a prompt does not tell how it was cut.
#[track_caller]
fn assert_chunks_end_alike(gpu: &mut Runner<Cuda>, length: usize) {
    let whole = end(gpu, length, 2048);
    for chunk in [512, 1000] {
        let error = difference(&end(gpu, length, chunk), &whole);
        eprintln!("the end of {length} tokens in chunks of {chunk} differs by {error:.1e}");
        assert!(error <= ROUNDING, "{error} behind {length} tokens in chunks of {chunk}");
    }
}

/// A CPU's end of a prompt is the card's.
#[track_caller]
fn assert_ends_as_on_the_cpu(gpu: &mut Runner<Cuda>, model: &Path) {
    let cpu = end(&mut on_all_cores(model, &capacity(MIDDLE)), MIDDLE, 512);
    let error = difference(&end(gpu, MIDDLE, 2048), &cpu);
    eprintln!("the end of {MIDDLE} tokens differs from the CPU's by {error:.1e}");
    assert!(error <= ROUNDING, "{error} behind {MIDDLE} tokens of {}", model.display());
}

/// The state behind 100,000 tokens does not tell how they were cut, and where a CPU can follow it
/// is the CPU's. Weights are halves, which both sides take as they are.
#[test]
fn long_prompts_end_alike_in_any_chunks_on_a_card() {
    let Some(context) = card() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("config.json"), SHAPE).expect("the shape is written");
    let path = directory.path().join("model.gguf");
    let halves = Recipe::from_name("F16").expect("a format");
    write_random(directory.path(), &path, halves, 11).expect("the model is written");
    let mut gpu = on_card_with(&context, &path, &capacity(LONG));
    assert_ends_as_on_the_cpu(&mut gpu, &path);
    assert_chunks_end_alike(&mut gpu, LONG);
}

/// The same of models without recurrent state and with V heads in groups, as far as the kernels for
/// small heads go in seconds.
#[test]
fn prompts_of_other_models_end_alike_in_any_chunks_on_a_card() {
    let Some(context) = card() else { return };
    for model in OTHERS {
        let mut gpu = on_card_with(&context, &place(model), &capacity(MIDDLE));
        assert_ends_as_on_the_cpu(&mut gpu, &place(model));
        assert_chunks_end_alike(&mut gpu, MIDDLE);
    }
}
