//! A model with its memory, driven step by step.

use std::path::Path;

use kernels::check::Noise;
use kernels::{Backend, SequenceRows, StepInputs};
use model::comm::Comm;
use model::{Cache, Capacity, Decoder, Scratch, Shard, Source};

pub(crate) const CAPACITY: Capacity =
    Capacity { max_rows: 640, max_logit_rows: 640, kv_blocks: 160, block_size: 16, state_slots: 8 };

/// Sequences; the blocks of one lie one in this many.
const SEQUENCES: usize = 4;

/// A model and up to four sequences.
pub(crate) struct Runner<B: Backend> {
    pub(crate) backend: B,
    /// Blocks of a sequence.
    blocks: usize,
    decoder: Decoder<B>,
    cache: Cache<B>,
    scratch: Scratch<B>,
    computed: [usize; SEQUENCES],
}

impl<B: Backend> Runner<B> {
    pub(crate) fn new(mut backend: B, path: &Path, capacity: &Capacity) -> Self {
        let source = Source::open(path).expect("the model opens");
        let decoder = model::arch::load(&mut backend, &source, Shard::SOLO).expect("it loads");
        let cache = decoder.cache(&mut backend, capacity).expect("caches");
        let scratch = decoder.scratch(&mut backend, capacity).expect("scratch");
        backend.ready().expect("there is room");
        let blocks = capacity.kv_blocks / SEQUENCES;
        Self { backend, blocks, decoder, cache, scratch, computed: [0; SEQUENCES] }
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
        let rows = sequences.iter().map(|(_, tokens)| tokens.len()).sum();
        self.step_for(sequences, (0..rows).collect())
    }

    /// One step that gives the logits of some rows, `[logit_rows, vocab]`.
    fn step_for(&mut self, sequences: &[(usize, &[u32])], logit_rows: Vec<usize>) -> Vec<f32> {
        let mut inputs = StepInputs::default();
        for &(at, tokens) in sequences {
            inputs.sequences.push(SequenceRows {
                first_row: inputs.tokens.len(),
                rows: tokens.len(),
                start: self.computed[at],
                blocks: (0..self.blocks)
                    .rev()
                    .map(|block| (SEQUENCES * block + at) as u32)
                    .collect(),
                slot: 2 * at,
            });
            inputs.tokens.extend(tokens);
            self.computed[at] += tokens.len();
        }
        let rows = logit_rows.len();
        inputs.logit_rows = logit_rows;
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

    /// Logits of the last of `tokens` of sequence `at`, computed `chunk` at a time.
    pub(crate) fn last(&mut self, at: usize, tokens: &[u32], chunk: usize) -> Vec<f32> {
        let steps = tokens.chunks(chunk);
        let logits = steps.map(|tokens| self.step_for(&[(at, tokens)], vec![tokens.len() - 1]));
        logits.last().expect("there are tokens")
    }

    /// Copies all recurrent state from sequence `from` to sequence `to`, which takes its place with
    /// the same blocks.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        self.cache.copy_state(&mut self.backend, 2 * from, 2 * to);
        for block in (0..self.blocks).map(|block| SEQUENCES * block) {
            self.cache.copy_block(&mut self.backend, block + from, block + to);
        }
        self.computed[to] = self.computed[from];
    }
}

/// Relative root-mean-square difference; not finite when an element is not.
pub(crate) fn difference(got: &[f32], want: &[f32]) -> f64 {
    kernels::check::error_ratio(got, &kernels::check::widen(want))
}
