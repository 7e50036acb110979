//! Prompts as long as agents make them.

use std::path::Path;

use kernels::cpu::Cpu;
use model::{Capacity, Recipe, write_random};

use super::equalities::ROUNDING;
use super::runner::{Runner, difference};
use super::{card, on_card_with};

const LONG: usize = 100_000;
/// As far as a CPU follows in a minute.
const MIDDLE: usize = 8_192;

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
    let cpu = end(&mut on_all_cores(&path, &capacity(MIDDLE)), MIDDLE, 512);
    let error = difference(&end(&mut gpu, MIDDLE, 2048), &cpu);
    eprintln!("the end of {MIDDLE} tokens differs from the CPU's by {error:.1e}");
    assert!(error <= ROUNDING, "{error} behind {MIDDLE} tokens");
    let whole = end(&mut gpu, LONG, 2048);
    for chunk in [512, 1000] {
        let error = difference(&end(&mut gpu, LONG, chunk), &whole);
        eprintln!("the end of {LONG} tokens in chunks of {chunk} differs by {error:.1e}");
        assert!(error <= ROUNDING, "{error} in chunks of {chunk}");
    }
}
