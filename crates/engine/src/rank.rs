//! One rank: a device, its share of the model, and the memory for running it.

use kernels::sample::{Choice, SampleRow};
use kernels::{Backend, DeviceFault};
use model::comm::Comm;
use model::{Cache, Capacity, Decoder, Scratch, Shard, Source};
use scheduler::Copy;

use crate::contract::Fault;
use crate::inputs::StepWork;
use crate::load::LoadError;

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
    ) -> Result<Self, LoadError> {
        let decoder = model::arch::load(&mut backend, source, shard)?;
        let cache = decoder.cache(&mut backend, capacity)?;
        let scratch = decoder.scratch(&mut backend, capacity)?;
        backend.ready()?;
        Ok(Self { backend, decoder, cache, scratch, comm })
    }

    /// Computes the step's rows and chooses a token for each row whose logits are wanted. `None`
    /// where a row is not finite.
    ///
    /// # Errors
    /// When the device failed: then nothing that was computed counts.
    pub(crate) fn step(
        &mut self,
        work: &StepWork,
        rows: &[SampleRow],
    ) -> Result<Vec<Option<Choice>>, Fault> {
        self.forward(work);
        let vocab = self.decoder.config().vocab_size;
        let choices = match rows {
            [] => Vec::new(),
            rows => self.backend.sample(&mut self.scratch.logits, vocab, rows),
        };
        let fault = |fault: DeviceFault| Err(Fault(fault.to_string()));
        self.backend.fault().map_or(Ok(choices), fault)
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
