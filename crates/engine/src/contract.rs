//! The types that cross from the daemon into the engine and back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use scheduler::RequestId;

/// What a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// The processor, with threads of this process.
    #[default]
    Cpu,
    /// NVIDIA card number so many, as the driver counts.
    Cuda(u32),
}
use crate::cache::{CacheCounts, PrefixCacheInfo};
use crate::grammar::{Grammar, Vocabulary};

/// What to load and how much room it may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSpec {
    /// A GGUF file or a part of a split one, or a directory with safetensors or one GGUF model.
    pub source: PathBuf,
    /// What it runs on.
    pub device: Device,
    /// Bytes of a card's memory that the model may take; what is free on it by default.
    pub memory_bytes: Option<u64>,
    /// The format to quantise float weights to, such as `Q4_K_M`; as they are by default.
    pub quant: Option<String>,
    /// Tokens of context a request may have; the model's own by default.
    pub context: Option<u32>,
    /// Requests that run together.
    pub max_running: u32,
    /// Tokens that one step may compute. With no more than `max_running` of them, prompts wait
    /// while as many requests are answered.
    pub token_budget: u32,
    /// The longest that a step may take while streams wait for its end, in milliseconds: it bounds
    /// the share of prompts in a step that also decodes.
    pub stall_ms: u32,
    /// KV blocks; by default enough for `max_running` requests of `context` tokens, within reason.
    pub kv_blocks: Option<u32>,
    /// Ranks that share the model.
    pub world_size: u32,
    /// Threads of a CPU rank; 1 by default.
    pub threads: Option<u32>,
    /// Whether requests reuse what earlier ones computed.
    pub prefix_cache: bool,
    /// Recurrent states that the prefix cache keeps; `max_running` times 4 by default.
    pub checkpoints: Option<u32>,
    /// Bytes of host memory for what the prefix cache has no more room for on the device, of all
    /// ranks together; 0 for none.
    pub host_cache_bytes: u64,
}

impl EngineSpec {
    /// The defaults for a model on this machine.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            device: Device::Cpu,
            memory_bytes: None,
            quant: None,
            context: None,
            max_running: 16,
            token_budget: 512,
            stall_ms: 250,
            kv_blocks: None,
            world_size: 1,
            threads: None,
            prefix_cache: true,
            checkpoints: None,
            host_cache_bytes: 0,
        }
    }
}

/// Bytes of one rank, as planned before the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankBytes {
    /// Weights as the backend keeps them.
    pub weights: u64,
    /// KV blocks.
    pub kv: u64,
    /// Recurrent state slots.
    pub state: u64,
    /// Activations of the largest step.
    pub workspace: u64,
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `general.architecture` or `model_type`, normalised: `qwen3`, `qwen3_5`.
    pub architecture: String,
    /// The weights' format in a word, for example `Q8_0` or `bf16`.
    pub quant: String,
    /// What it runs on.
    pub device: Device,
    /// Rows of the output head; ids at or above are never sampled.
    pub vocab_size: u32,
    /// Tokens that one request may have, prompt and answer together.
    pub context: u32,
    /// Requests that run together.
    pub max_running: u32,
    /// Tokens of a KV block.
    pub block_size: u32,
    /// KV blocks in all.
    pub kv_blocks: u32,
    /// Recurrent state slots for running requests; 0 for a model without recurrent layers.
    pub state_slots: u32,
    /// Further slots, for states that the prefix cache keeps.
    pub checkpoint_slots: u32,
    /// Per rank.
    pub ranks: Vec<RankBytes>,
    /// See [`PrefixCacheInfo`].
    pub prefix_cache: PrefixCacheInfo,
    /// What was wrong with the logits of the first steps, all of which ran before the load was
    /// done: requests will end with [`End::NotFinite`]. `None` when they were numbers.
    pub unsound: Option<String>,
}

/// How the next token is chosen; every field has its value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus mass in (0, 1].
    pub top_p: f32,
    /// Keep this many; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens with at least this share of the best one's probability; 0 keeps all.
    pub min_p: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// Keys the counter-based generator together with the position.
    pub seed: u64,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Sampling {
    /// The most probable token, always.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            logit_bias: Vec::new(),
        }
    }

    /// Refuses what is no number: no token could be weighed by it.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let biases = self.logit_bias.iter().map(|(_, bias)| ("logit_bias", *bias));
        let others = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("repetition_penalty", self.repetition_penalty),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ];
        match others.into_iter().chain(biases).find(|(_, value)| !value.is_finite()) {
            Some((name, value)) => {
                Err(Refusal::Invalid(format!("{name} is {value}; it must be a number")))
            }
            None if self.repetition_penalty <= 0.0 => {
                let penalty = self.repetition_penalty;
                Err(Refusal::Invalid(format!("repetition_penalty is {penalty}, not above 0")))
            }
            None => Ok(()),
        }
    }
}

/// One generation, in tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Chosen by the caller, unique among live requests.
    pub id: RequestId,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// The beginning of the answer, where an earlier run of this request got so far; what comes
    /// next is as if that run had gone on. Fewer than `max_tokens`, and no end among them.
    pub answered: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens to generate at most; at least 1.
    pub max_tokens: u32,
    /// No stop token before this many.
    pub min_tokens: u32,
    /// Tokens that end the answer; the ending one is reported like any other.
    pub stop_tokens: Vec<u32>,
    /// Positions of the prompt at which later prompts may part from it: ends of messages, say. The
    /// prefix cache keeps recurrent state there.
    pub boundaries: Vec<u32>,
    /// Requests reuse what was computed for the same key alone.
    pub isolation: u64,
    /// Report log-probabilities: of each token and of this many of its most probable rivals.
    pub top_logprobs: Option<u8>,
    /// The form of the answer. It needs a stop token, by which the answer ends when it is whole.
    pub grammar: Option<Grammar>,
    /// A part of the answer that has a limit of its own.
    pub part_limit: Option<PartLimit>,
    /// Tell the prompt's embedding. An answer is made besides; its shortest is one token.
    pub pooling: Option<Pooling>,
}

/// A limit on the first part of an answer, such as what a model thinks before it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartLimit {
    /// The token that begins the part; `None` when the prompt has begun it. A part that does not
    /// begin with one of the first tokens of the answer never does.
    pub open: Option<u32>,
    /// The token that ends it.
    pub close: u32,
    /// Tokens that it may have, that of `close` and what is forced before it included.
    pub most: u32,
    /// What follows when it has no room for more: these tokens and no others. Holds `close`.
    pub ending: Vec<u32>,
}

/// Which hidden states of a prompt make its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// The last token's.
    Last,
    /// The mean over all tokens. Each of them has to be computed, so that such a request shares
    /// nothing with others, whatever its `isolation`.
    Mean,
}

/// What [`TokenRequest::pooling`] asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// The request.
    pub id: RequestId,
    /// Pooled hidden states behind the final norm, `[hidden]`; their length is not made 1.
    pub values: Vec<f32>,
}

impl TokenRequest {
    /// The most probable tokens, `max_tokens` of them.
    pub fn new(id: RequestId, prompt: Vec<u32>, max_tokens: u32) -> Self {
        Self {
            id,
            prompt,
            answered: Vec::new(),
            sampling: Sampling::greedy(),
            max_tokens,
            min_tokens: 0,
            stop_tokens: Vec::new(),
            boundaries: Vec::new(),
            isolation: 0,
            top_logprobs: None,
            grammar: None,
            part_limit: None,
            pooling: None,
        }
    }
}

/// Why a request got no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// A stop token was sampled; it is the last reported token.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
    /// The logits of this row were not finite; other rows go on.
    NotFinite,
    /// The grammar could not be followed any further; other rows go on.
    Grammar,
}

/// Log-probabilities of one token, by the model's own distribution: parameters and masks leave
/// them as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprobs {
    /// Of the token.
    pub chosen: f32,
    /// The most probable tokens, best first.
    pub top: Vec<(u32, f32)>,
}

/// What a step did for one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenUpdate {
    /// The request.
    pub id: RequestId,
    /// New tokens, in order; empty when the step only worked on the prompt.
    pub tokens: Vec<u32>,
    /// One for each token, or none where the request does not ask.
    pub logprobs: Vec<TokenLogprobs>,
    /// Set once, with the last tokens.
    pub end: Option<End>,
}

/// A request's first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The request.
    pub id: RequestId,
    /// Tokens of its prompt that the prefix cache supplied.
    pub cached_tokens: u32,
    /// The first token of its prompt that differs from the longest cached one, whether what comes
    /// before it could be used or not; `None` when nothing differs.
    pub diverged_at: Option<u32>,
}

/// What became of a request whose submission was [`Admission::Pending`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The request.
    pub id: RequestId,
    /// Why it was not taken.
    pub refusal: Option<Refusal>,
}

/// Counts after a step, cheap enough to send with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauges {
    /// Requests that hold blocks or slots.
    pub running: u32,
    /// Requests admitted and not yet begun.
    pub waiting: u32,
    /// KV blocks that no request holds.
    pub kv_blocks_free: u32,
    /// Recurrent state slots that no request holds.
    pub state_slots_free: u32,
    /// What the prefix cache did and holds.
    pub cache: CacheCounts,
}

/// One step, for everybody who took part: one frame carries all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Requests whose grammar is done: in line from now on, or refused.
    pub settled: Vec<Settled>,
    /// Requests that this step worked on for the first time.
    pub started: Vec<Started>,
    /// Requests with news.
    pub updates: Vec<TokenUpdate>,
    /// Embeddings that are done; each stands beside an update of its request.
    pub embeddings: Vec<Embedding>,
    /// Prompt tokens computed.
    pub prefill_tokens: u32,
    /// Tokens sampled.
    pub decode_tokens: u32,
    /// Wall time of the step.
    pub step_micros: u64,
    /// After the step.
    pub gauges: Gauges,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It can never fit.
    #[error(
        "prompt of {prompt} tokens and {max_tokens} to generate exceed the context of {context}"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: u32,
        /// Tokens asked for.
        max_tokens: u32,
        /// Tokens that a request may have.
        context: u32,
    },
    /// The waiting line is full; it may fit later.
    #[error("{waiting} requests are waiting already")]
    QueueFull {
        /// Requests in the line.
        waiting: u32,
    },
    /// The request is malformed.
    #[error("{0}")]
    Invalid(String),
    /// Its grammar cannot be followed here.
    #[error("{0}")]
    Grammar(String),
}

/// How far a submission has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// No check can refuse it any more.
    Accepted,
    /// Its grammar is looked at first; a step's [`StepReport::settled`] tells the outcome.
    Pending,
}

/// The engine cannot go on: its process must end.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// An engine as its driver sees it.
pub trait TokenEngine {
    /// What was loaded.
    fn info(&self) -> &EngineInfo;
    /// Says what the tokens spell, before the first request that has a grammar.
    fn set_vocabulary(&mut self, vocabulary: Vocabulary);
    /// Takes a request into the waiting line.
    fn submit(&mut self, request: TokenRequest) -> Result<Admission, Refusal>;
    /// Forgets a request; unknown ids are fine, since an end and an abort may cross.
    fn abort(&mut self, id: RequestId);
    /// Whether a step would do nothing.
    fn is_idle(&self) -> bool;
    /// Counts right now.
    fn gauges(&self) -> Gauges;
    /// Advances every request that this step has room for.
    fn step(&mut self) -> Result<StepReport, Fault>;
    /// Hears from its driver, who has a clock, how long the last step took, and plans the next ones
    /// by it. An engine that nobody tells computes prompts as fast as it can.
    fn pace(&mut self, _step_micros: u64) {}
}
