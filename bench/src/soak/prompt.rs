//! Prompts with something in each that no other has.

use serde_json::{Value, json};

/// Words that prompts are padded with, so that they differ in length and share beginnings.
const WORDS: [&str; 12] = [
    "castle", "river", "candle", "yellow", "garden", "piano", "silver", "bridge", "window",
    "mountain", "lemon", "saddle",
];

/// A conversation whose answer must hold its nonce.
pub(super) struct Prompt {
    pub(super) messages: Value,
    pub(super) nonce: String,
    /// What an otherwise idle server answers.
    pub(super) answer: String,
}

impl Prompt {
    pub(super) fn draw(draws: &mut Draws, number: u64) -> Self {
        let nonce = format!("{number}{:05}", draws.below(100_000));
        let mut messages = Vec::new();
        if draws.below(2) == 0 {
            messages.push(json!({"role": "system", "content": "You are a helpful assistant."}));
        }
        for _ in 0..draws.below(4) {
            let count = 1 + draws.below(8);
            let words = (0..count).map(|_| WORDS[draws.below(WORDS.len() as u64) as usize]);
            let words = words.collect::<Vec<_>>().join(" ");
            messages.push(json!({"role": "user", "content": format!("Say: {words}")}));
            messages.push(json!({"role": "assistant", "content": words}));
        }
        let word = WORDS[draws.below(WORDS.len() as u64) as usize];
        messages.push(json!({"role": "user", "content": format!("Say: {word} {nonce}")}));
        Self { messages: messages.into(), nonce, answer: String::new() }
    }
}

/// SplitMix64: the same seed draws the same prompts on every machine.
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in `0..bound`; bounds here are so small that the modulo's bias is nothing.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_prompt_has_its_own_nonce() {
        let mut draws = Draws::new(3);
        let nonces: BTreeSet<_> = (0..500).map(|n| Prompt::draw(&mut draws, n).nonce).collect();
        assert_eq!(nonces.len(), 500);
    }
}
