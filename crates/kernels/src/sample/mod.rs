//! Chooses the next token from logits.
//!
//! Order: bias, penalties, bans, mask; then greedy, or temperature, top-k, top-p, min-p and one
//! draw. Each cut looks at what the one before it left: top-p takes its share of the mass that
//! top-k kept. The draw's random number depends on the seed and the position alone, so the same
//! request gives the same text in any batch.
//!
//! Log-probabilities are those of the model's own distribution: the log-softmax of the logits as
//! they came, before anything in this list. They tell what the model thinks, whatever the caller's
//! parameters make of it.

mod choose;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod logprobs;
mod mask;
mod philox;
#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests;

pub use choose::choose;
pub use logprobs::Logprobs;
pub use mask::TokenMask;
pub use philox::uniform;

/// How one row's token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus mass in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Keep this many; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens with at least this share of the best one's probability; 0 keeps all.
    pub min_p: f32,
    /// Keys the random number.
    pub seed: u64,
    /// Position of the token that is chosen; counts the random number.
    pub position: u64,
    /// Divides positive and multiplies negative logits of `seen`; 1 is off.
    pub repetition_penalty: f32,
    /// Tokens of prompt and answer, each once; may be empty when the penalty is off.
    pub seen: Vec<u32>,
    /// Subtracted from each token of `generated`; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted times its count from each token of `generated`; 0 is off.
    pub frequency_penalty: f32,
    /// Tokens of the answer with their counts; may be empty when both penalties are off.
    pub generated: Vec<(u32, u32)>,
    /// Added to these tokens' logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Never chosen: stop tokens before the least number of tokens is reached.
    pub banned: Vec<u32>,
    /// The only tokens that may be chosen, where a grammar says so; `None` allows all.
    pub allowed: Option<TokenMask>,
    /// Report log-probabilities: of the chosen token and of this many of the most probable ones.
    pub top_logprobs: Option<u8>,
}

impl SampleRow {
    /// The most probable token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: 0,
            position: 0,
            repetition_penalty: 1.0,
            seen: Vec::new(),
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            generated: Vec::new(),
            logit_bias: Vec::new(),
            banned: Vec::new(),
            allowed: None,
            top_logprobs: None,
        }
    }

    /// Whether the row's token depends on nothing but its logits and its draw, and nothing but the
    /// token is wanted: such rows can be chosen for before the host has seen the token before.
    pub fn is_plain(&self) -> bool {
        self.repetition_penalty == 1.0
            && self.presence_penalty == 0.0
            && self.frequency_penalty == 0.0
            && self.logit_bias.is_empty()
            && self.banned.is_empty()
            && self.allowed.is_none()
            && self.top_logprobs.is_none()
    }
}

/// What came of a row that was chosen for while the host did something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The token.
    Token(u32),
    /// The row is not finite.
    Nothing,
    /// The device could not tell, and the logits may be gone.
    Undecided,
}

/// What was chosen for a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: u32,
    /// `Some` exactly where the row asks for them.
    pub logprobs: Option<Logprobs>,
}
