//! A decoder: embedding, layers, logits. Which layers, an architecture file says.

use kernels::gated_delta_rule::DeltaState;
use kernels::{Backend, Begun, KvShape, StepInputs};

use crate::Error;
use crate::attention::{Attention, attention_shape};
use crate::cache::{Cache, LayerCache};
use crate::comm::Comm;
use crate::config::{LayerKind, ModelConfig};
use crate::delta_net::{DeltaNet, delta_shapes};
use crate::load::{Source, TensorName};
use crate::mlp::Mlp;
use crate::moe::Moe;
use crate::shard::Shard;
use crate::step::Step;
use crate::vocabulary::VocabularyParallel;
use crate::weights::{LayerWeights, norm};

/// What mixes tokens in a layer.
pub(crate) enum Mixer<B: Backend> {
    Attention(Attention<B>),
    DeltaNet(DeltaNet<B>),
}

/// What a layer makes of each token by itself.
pub(crate) enum FeedForward<B: Backend> {
    Dense(Mlp<B>),
    Moe(Moe<B>),
}

impl<B: Backend> Mixer<B> {
    /// The mixer of a hybrid's layer.
    pub(crate) fn load(
        backend: &mut B,
        weights: &LayerWeights<'_>,
        shard: &Shard,
        kind: LayerKind,
    ) -> Result<Self, Error> {
        Ok(match kind {
            LayerKind::FullAttention => Self::Attention(Attention::load(backend, weights, shard)?),
            LayerKind::LinearAttention => Self::DeltaNet(DeltaNet::load(backend, weights, shard)?),
        })
    }
}

/// `hidden += mixer(norm(hidden)); hidden += feed_forward(norm(hidden))`.
pub(crate) struct Layer<B: Backend> {
    pub(crate) mixer: Mixer<B>,
    pub(crate) feed_forward: FeedForward<B>,
}

/// One rank's share of a model.
pub struct Decoder<B: Backend> {
    config: ModelConfig,
    shard: Shard,
    embedding: VocabularyParallel<B>,
    layers: Vec<Layer<B>>,
    norm: B::Vector,
    /// The same where the host reads it.
    host_norm: Vec<f32>,
    /// `None` when the embedding is the output head as well.
    head: Option<VocabularyParallel<B>>,
}

/// Activations of the largest step, `[max_rows, ...]` each; layers of a kind share them.
pub struct Scratch<B: Backend> {
    pub(crate) hidden: B::Tensor,
    pub(crate) partial: B::Tensor,
    pub(crate) qkv: B::Tensor,
    pub(crate) attended: B::Tensor,
    pub(crate) projected: B::Tensor,
    pub(crate) remembered: B::Tensor,
    pub(crate) gate_up: B::Tensor,
    pub(crate) activated: B::Tensor,
    /// `[max_logit_rows, own ids]`; without columns where a rank has them all.
    pub(crate) logits_part: B::Tensor,
    /// `[max_logit_rows, vocab]`.
    pub logits: B::Tensor,
}

/// How much a decoder's caches and activations must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Tokens of the largest step.
    pub max_rows: usize,
    /// Rows of a step whose logits are wanted, at most.
    pub max_logit_rows: usize,
    /// KV blocks.
    pub kv_blocks: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// Recurrent state slots.
    pub state_slots: usize,
}

/// Columns of each scratch tensor of a rank.
pub(crate) struct Widths {
    pub(crate) hidden: usize,
    pub(crate) qkv: usize,
    pub(crate) attended: usize,
    pub(crate) projected: usize,
    pub(crate) remembered: usize,
    /// Of a dense feed-forward layer; 0 if there is none.
    pub(crate) ffn: usize,
    /// Of the widest expert; 0 if there is none.
    pub(crate) expert: usize,
    pub(crate) vocab: usize,
    /// Of the vocabulary, what a rank computes; 0 if that is all of it.
    pub(crate) vocab_part: usize,
}

impl Widths {
    pub(crate) fn of(config: &ModelConfig, shard: &Shard) -> Result<Self, Error> {
        let attention = attention_shape(config, shard)?;
        let delta = match &config.delta {
            Some(delta) => Some(delta_shapes(delta, shard)?.0),
            None => None,
        };
        Ok(Self {
            hidden: config.hidden,
            qkv: attention.cols(),
            attended: attention.out_cols(),
            projected: delta.map_or(0, |shape| shape.cols()),
            remembered: delta.map_or(0, |shape| shape.value_cols()),
            ffn: shard.share("feed-forward columns", config.ffn)?.len(),
            expert: match &config.moe {
                Some(moe) => {
                    let widest = moe.ffn.max(moe.shared_ffn.unwrap_or(0));
                    shard.share("columns of an expert", widest)?.len()
                }
                None => 0,
            },
            vocab: config.vocab_size,
            vocab_part: match shard.world_size {
                1 => 0,
                _ => shard.split(config.vocab_size).len(),
            },
        })
    }
}

impl<B: Backend> Decoder<B> {
    /// Puts layers between an embedding and an output head.
    pub(crate) fn load(
        backend: &mut B,
        source: &Source,
        shard: Shard,
        layers: Vec<Layer<B>>,
    ) -> Result<Self, Error> {
        let config = source.config().clone();
        let mut table = |name| VocabularyParallel::load(backend, source, name, &shard);
        let embedding = table(TensorName::Embedding)?;
        let head = if config.tied { None } else { Some(table(TensorName::Output)?) };
        let host_norm = norm(source, TensorName::OutputNorm)?;
        Ok(Self {
            shard,
            embedding,
            layers,
            norm: backend.vector(&host_norm),
            host_norm,
            head,
            config,
        })
    }

    /// What was loaded.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Takes the memory for activations.
    pub fn scratch(&self, backend: &mut B, capacity: &Capacity) -> Result<Scratch<B>, Error> {
        let widths = Widths::of(&self.config, &self.shard)?;
        let mut tensor = |cols| backend.tensor(capacity.max_rows, cols);
        Ok(Scratch {
            hidden: tensor(widths.hidden),
            partial: tensor(widths.hidden),
            qkv: tensor(widths.qkv),
            attended: tensor(widths.attended),
            projected: tensor(widths.projected),
            remembered: tensor(widths.remembered),
            gate_up: tensor(2 * widths.ffn),
            activated: tensor(widths.ffn),
            logits_part: backend.tensor(capacity.max_logit_rows, widths.vocab_part),
            logits: backend.tensor(capacity.max_logit_rows, widths.vocab),
        })
    }

    /// Takes the memory for keys, values and recurrent state.
    pub fn cache(&self, backend: &mut B, capacity: &Capacity) -> Result<Cache<B>, Error> {
        let attention = attention_shape(&self.config, &self.shard)?;
        let kv = KvShape {
            blocks: capacity.kv_blocks,
            block_size: capacity.block_size,
            kv_heads: attention.kv_heads,
            head_dim: attention.head_dim,
        };
        let layers = self.layers.iter().map(|layer| match layer.mixer {
            Mixer::Attention(_) => Ok(LayerCache::Attention(backend.kv_cache(kv))),
            Mixer::DeltaNet(_) => {
                let delta = self.config.delta.as_ref().expect("loading needed it too");
                let (delta, conv) = delta_shapes(delta, &self.shard)?;
                Ok(LayerCache::DeltaNet(DeltaState {
                    conv: backend.state(capacity.state_slots, conv.state_elements()),
                    memory: backend.state(capacity.state_slots, delta.state_elements()),
                }))
            }
        });
        Ok(Cache { layers: layers.collect::<Result<_, Error>>()? })
    }

    /// One step: fills the caches and leaves the wanted rows' logits in `scratch.logits`.
    pub fn forward(
        &self,
        backend: &mut B,
        comm: &Comm,
        cache: &mut Cache<B>,
        scratch: &mut Scratch<B>,
        inputs: StepInputs,
    ) {
        let (rows, logit_rows) = (inputs.rows(), inputs.logit_rows.len());
        if backend.begin_step(self.embedding.localised(inputs)) == Begun::Replayed {
            return;
        }
        self.embedding.embed(backend, comm, rows, &mut scratch.hidden);
        let mut step = Step { backend, comm, rows };
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            match (&layer.mixer, cache) {
                (Mixer::Attention(attention), LayerCache::Attention(cache)) => {
                    attention.forward(&mut step, scratch, cache);
                }
                (Mixer::DeltaNet(delta_net), LayerCache::DeltaNet(state)) => {
                    delta_net.forward(&mut step, scratch, state);
                }
                _ => unreachable!("the cache was made for other layers"),
            }
            match &layer.feed_forward {
                FeedForward::Dense(mlp) => mlp.forward(&mut step, scratch),
                FeedForward::Moe(moe) => moe.forward(&mut step, scratch),
            }
        }
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let Scratch { hidden, logits_part, logits, .. } = scratch;
        let norm = (&self.norm, self.config.eps);
        head.logits(backend, comm, logit_rows, hidden, norm, (logits_part, logits));
        backend.end_step();
    }

    /// The first `rows` hidden states of the last step behind the final norm, `[rows, hidden]`.
    pub fn hidden(&self, backend: &mut B, scratch: &Scratch<B>, rows: usize) -> Vec<f32> {
        let mut states = backend.read(&scratch.hidden, rows);
        for row in states.chunks_exact_mut(self.config.hidden) {
            let squares: f32 = row.iter().map(|x| x * x).sum();
            let scale = 1.0 / (squares / row.len() as f32 + self.config.eps).sqrt();
            row.iter_mut().zip(&self.host_norm).for_each(|(x, weight)| *x *= scale * weight);
        }
        states
    }
}
