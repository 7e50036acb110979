//! One rank: a device, its share of the model, and the memory for running it.

use kernels::Backend;
use kernels::sample::{Choice, SampleRow};
use model::comm::Comm;
use model::{Cache, Capacity, Decoder, Scratch, Shard, Source};
use scheduler::Copy;

use crate::inputs::StepWork;

/// See the module.
pub(crate) struct Rank<B: Backend> {
    backend: B,
    decoder: Decoder<B>,
    cache: Cache<B>,
    scratch: Scratch<B>,
    comm: Comm,
}

impl<B: Backend> Rank<B> {
    pub(crate) fn load(
        mut backend: B,
        source: &Source,
        shard: Shard,
        comm: Comm,
        capacity: &Capacity,
    ) -> Result<Self, model::Error> {
        let decoder = model::arch::load(&mut backend, source, shard)?;
        let cache = decoder.cache(&mut backend, capacity)?;
        let scratch = decoder.scratch(&mut backend, capacity)?;
        Ok(Self { backend, decoder, cache, scratch, comm })
    }

    /// Computes the step's rows and chooses a token for each row whose logits are wanted. `None`
    /// where a row is not finite.
    pub(crate) fn step(&mut self, work: &StepWork, rows: &[SampleRow]) -> Vec<Option<Choice>> {
        self.forward(work);
        if rows.is_empty() {
            return Vec::new();
        }
        let vocab = self.decoder.config().vocab_size;
        self.backend.sample(&mut self.scratch.logits, vocab, rows)
    }

    /// The part of a step that every rank takes.
    pub(crate) fn forward(&mut self, work: &StepWork) {
        let Self { backend, decoder, cache, scratch, comm } = self;
        for copy in &work.copies {
            match *copy {
                Copy::State { from, to } => cache.copy_state(backend, from as usize, to as usize),
                Copy::Block { from, to } => cache.copy_block(backend, from as usize, to as usize),
            }
        }
        decoder.forward(backend, comm, cache, scratch, work.inputs.clone());
    }
}
