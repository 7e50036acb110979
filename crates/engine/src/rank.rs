//! One rank: a device, its share of the model, and the memory for running it.

use kernels::sample::{Choice, Pick, SampleRow};
use kernels::{Backend, LaunchTime};
use model::comm::Comm;
use model::{Cache, Capacity, Decoder, Scratch, Shard, Source};

use crate::contract::Fault;
use crate::error::LoadError;
use crate::host::HostStore;
use crate::inputs::StepWork;

/// See the module.
pub(crate) struct Rank<B: Backend> {
    backend: B,
    decoder: Decoder<B>,
    cache: Cache<B>,
    scratch: Scratch<B>,
    comm: Comm,
    host: HostStore,
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
        Ok(Self { backend, decoder, cache, scratch, comm, host: HostStore::default() })
    }

    /// `value`, unless the device has failed: then nothing that was computed counts.
    pub(crate) fn sound<T>(&self, value: T) -> Result<T, Fault> {
        self.backend.fault().map_or(Ok(value), |fault| Err(Fault(fault.to_string())))
    }

    /// Chooses a token for each row of the last step whose logits are wanted. `None` where a row
    /// is not finite, or nothing may be chosen.
    pub(crate) fn sample(&mut self, rows: &[SampleRow]) -> Vec<Option<Choice>> {
        if rows.is_empty() {
            return Vec::new();
        }
        let vocab = self.decoder.config().vocab_size;
        self.backend.sample(&mut self.scratch.logits, vocab, rows)
    }

    /// As [`Self::sample`] for plain rows, at least one, without waiting.
    pub(crate) fn start_sample(&mut self, rows: &[SampleRow]) {
        let vocab = self.decoder.config().vocab_size;
        self.backend.start_sample(&mut self.scratch.logits, vocab, rows);
    }

    /// What came of the oldest [`Self::start_sample`].
    pub(crate) fn finish_sample(&mut self) -> Vec<Pick> {
        self.backend.finish_sample()
    }

    /// See [`Backend::time_next_step`].
    pub(crate) fn time_next_step(&mut self) {
        self.backend.time_next_step();
    }

    /// See [`Backend::launch_times`].
    pub(crate) fn launch_times(&mut self) -> Vec<LaunchTime> {
        self.backend.launch_times()
    }

    /// Whether the device gains by steps that run ahead of their reader.
    pub(crate) fn gains_by_running_ahead(&self) -> bool {
        self.backend.gains_by_running_ahead()
    }

    /// Computes the step's rows.
    pub(crate) fn forward(&mut self, work: &StepWork) {
        let Self { backend, decoder, cache, scratch, comm, host } = self;
        for copy in &work.copies {
            host.carry_out(copy, backend, cache);
        }
        if work.inputs.rows() > 0 {
            decoder.forward(backend, comm, cache, scratch, work.inputs.clone());
        }
    }

    /// The hidden states of the last step's first rows behind the final norm, `[rows, hidden]`.
    pub(crate) fn hidden(&mut self, rows: usize) -> Vec<f32> {
        self.decoder.hidden(&mut self.backend, &self.scratch, rows)
    }

    /// The first `rows` rows of the last step's logits.
    pub(crate) fn logits(&mut self, rows: usize) -> Vec<f32> {
        self.backend.read(&self.scratch.logits, rows)
    }
}
