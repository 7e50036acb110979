//! A model with its memory, driven step by step.

use std::path::Path;

use kernels::check::Noise;
use kernels::{Backend, SequenceRows, StepInputs};
use model::comm::Comm;
use model::{Cache, Capacity, Decoder, Scratch, Shard, Source};

pub(crate) const CAPACITY: Capacity =
    Capacity { max_rows: 640, max_logit_rows: 640, kv_blocks: 160, block_size: 16, state_slots: 8 };

/// Blocks of a sequence; they lie one in this many.
const BLOCKS: usize = 40;

/// A model and up to four sequences.
pub(crate) struct Runner<B: Backend> {
    pub(crate) backend: B,
    decoder: Decoder<B>,
    cache: Cache<B>,
    scratch: Scratch<B>,
    computed: [usize; 4],
}

impl<B: Backend> Runner<B> {
    pub(crate) fn new(mut backend: B, path: &Path) -> Self {
        let source = Source::open(path).expect("the model opens");
        let decoder = model::arch::load(&mut backend, &source, Shard::SOLO).expect("it loads");
        let cache = decoder.cache(&mut backend, &CAPACITY).expect("caches");
        let scratch = decoder.scratch(&mut backend, &CAPACITY).expect("scratch");
        backend.ready().expect("there is room");
        Self { backend, decoder, cache, scratch, computed: [0; 4] }
    }

    pub(crate) fn vocab(&self) -> usize {
        self.decoder.config().vocab_size
    }

    /// Some tokens of the vocabulary, different ones for each seed.
    pub(crate) fn tokens(&self, seed: u64, count: usize) -> Vec<u32> {
        let mut noise = Noise::new(seed);
        (0..count).map(|_| noise.below(self.vocab()) as u32).collect()
    }

    /// Forgets what sequence `at` has computed.
    pub(crate) fn restart(&mut self, at: usize) {
        self.computed[at] = 0;
    }

    /// One step: logits of all its rows, sequence after sequence, `[rows, vocab]`.
    pub(crate) fn step(&mut self, sequences: &[(usize, &[u32])]) -> Vec<f32> {
        let mut inputs = StepInputs::default();
        for &(at, tokens) in sequences {
            inputs.sequences.push(SequenceRows {
                first_row: inputs.tokens.len(),
                rows: tokens.len(),
                start: self.computed[at],
                blocks: (0..BLOCKS).rev().map(|block| (4 * block + at) as u32).collect(),
                slot: 2 * at,
            });
            inputs.tokens.extend(tokens);
            self.computed[at] += tokens.len();
        }
        let rows = inputs.rows();
        inputs.logit_rows = (0..rows).collect();
        let Self { backend, decoder, cache, scratch, .. } = self;
        decoder.forward(backend, &Comm::Solo, cache, scratch, inputs);
        let logits = self.backend.read(&self.scratch.logits, rows);
        assert_eq!(self.backend.fault(), None);
        logits
    }

    /// Logits of all `tokens` of sequence `at`, computed `chunk` at a time.
    pub(crate) fn chunked(&mut self, at: usize, tokens: &[u32], chunk: usize) -> Vec<f32> {
        tokens.chunks(chunk).flat_map(|tokens| self.step(&[(at, tokens)])).collect()
    }

    /// Copies all recurrent state from sequence `from` to sequence `to`, which takes its place with
    /// the same blocks.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        self.cache.copy_state(&mut self.backend, 2 * from, 2 * to);
        for block in 0..BLOCKS {
            self.cache.copy_block(&mut self.backend, 4 * block + from, 4 * block + to);
        }
        self.computed[to] = self.computed[from];
    }
}

/// Relative root-mean-square difference; not finite when an element is not.
pub(crate) fn difference(got: &[f32], want: &[f32]) -> f64 {
    kernels::check::error_ratio(got, &kernels::check::widen(want))
}
