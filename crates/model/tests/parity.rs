//! Our models against Hugging Face transformers, on tiny random checkpoints (equality E2).

use std::path::{Path, PathBuf};

use kernels::cpu::Cpu;
use kernels::sample::SampleRow;
use kernels::{Backend, SequenceRows, StepInputs};
use model::comm::Comm;
use model::{Cache, Capacity, Decoder, Scratch, Shard, Source};

fn fixture(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(model)
}

/// What transformers computed in f32.
struct Expected {
    prompt: Vec<u32>,
    /// `[prompt, vocab]`.
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn expected(model: &str) -> Expected {
    let json = std::fs::read(fixture(model).join("expected.json")).expect("the fixture");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let ids = |key: &str| -> Vec<u32> {
        let ids = json[key].as_array().expect("a list");
        ids.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    let logits = std::fs::read(fixture(model).join("logits.f32")).expect("the fixture");
    let (logits, rest) = logits.as_chunks::<4>();
    assert!(rest.is_empty());
    let logits = logits.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Expected { prompt: ids("prompt"), logits, greedy: ids("greedy") }
}

/// One sequence on one rank.
struct Runner {
    backend: Cpu,
    decoder: Decoder<Cpu>,
    cache: Cache<Cpu>,
    scratch: Scratch<Cpu>,
    computed: usize,
}

impl Runner {
    fn new(path: &Path) -> Self {
        let source = Source::open(path).expect("the model opens");
        let mut backend = Cpu::new(1);
        let decoder = model::arch::load(&mut backend, &source, Shard::SOLO).expect("it loads");
        let capacity = Capacity {
            max_rows: 64,
            max_logit_rows: 64,
            kv_blocks: 8,
            block_size: 16,
            state_slots: 1,
        };
        let cache = decoder.cache(&mut backend, &capacity).expect("caches");
        let scratch = decoder.scratch(&mut backend, &capacity).expect("scratch");
        Self { backend, decoder, cache, scratch, computed: 0 }
    }

    /// Logits of every one of `tokens`, `[tokens, vocab]`.
    fn logits(&mut self, tokens: &[u32]) -> Vec<f32> {
        let rows = tokens.len();
        let inputs = StepInputs {
            tokens: tokens.to_vec(),
            sequences: vec![SequenceRows {
                first_row: 0,
                rows,
                start: self.computed,
                blocks: (0..8).rev().collect(),
                slot: 0,
            }],
            logit_rows: (0..rows).collect(),
        };
        let Self { backend, decoder, cache, scratch, .. } = self;
        decoder.forward(backend, &Comm::Solo, cache, scratch, inputs);
        self.computed += rows;
        self.backend.read(&self.scratch.logits, rows)
    }

    fn greedy(&mut self, prompt: &[u32], count: usize) -> Vec<u32> {
        let vocab = self.decoder.config().vocab_size;
        let mut logits = self.logits(prompt).split_off((prompt.len() - 1) * vocab);
        let mut tokens = Vec::new();
        for _ in 0..count {
            let token = kernels::sample::choose(&SampleRow::greedy(), &mut logits).expect("finite");
            tokens.push(token);
            logits = self.logits(&[token]);
        }
        tokens
    }
}

fn largest_difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let differences = got.iter().zip(want).map(|(got, want)| (got - want).abs());
    // NaN must not pass for small, nor be forgotten.
    differences.fold(0.0, |most, it| if it > most || it.is_nan() { it } else { most })
}

fn check(model: &str, path: &Path) {
    let expected = expected(model);
    let difference =
        largest_difference(&Runner::new(path).logits(&expected.prompt), &expected.logits);
    assert!(difference <= 1e-3, "{}: logits differ by {difference}", path.display());
    let greedy = Runner::new(path).greedy(&expected.prompt, expected.greedy.len());
    assert_eq!(greedy, expected.greedy, "{}: greedy tokens", path.display());
    assert_eq!(greedy.len(), 64);
}

/// Requirements 58 and 107.
#[test]
fn safetensors_equal_transformers() {
    for model in ["qwen3", "qwen3_5"] {
        check(model, &fixture(model));
    }
}

/// Requirement 126: what the conversion changes, the model undoes.
#[test]
fn converted_files_equal_transformers() {
    let directory = tempfile::tempdir().expect("a directory");
    for model in ["qwen3", "qwen3_5"] {
        let path = directory.path().join(format!("{model}.gguf"));
        model::convert(&fixture(model), &path, kernels::WeightType::F32).expect("it converts");
        check(model, &path);
    }
}
