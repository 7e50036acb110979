//! Chooses the next token from logits.
//!
//! Order: bias, penalties, bans; then greedy, or temperature, top-k, top-p, min-p and one draw.
//! The draw's random number depends on the seed and the position alone, so the same request gives
//! the same text in any batch.

mod choose;
mod philox;

#[cfg(test)]
mod tests;

pub use choose::choose;
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
        }
    }
}
