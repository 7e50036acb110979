//! What a request's sampling parameters mean for its next token.

use std::collections::{BTreeMap, BTreeSet};

use kernels::sample::SampleRow;

use crate::contract::{Sampling, TokenRequest};

/// A request's parameters and the history that its penalties look at.
pub(crate) struct RequestSampler {
    sampling: Sampling,
    stop_tokens: Vec<u32>,
    min_tokens: u32,
    generated_tokens: u32,
    /// Tokens of prompt and answer; kept only for the repetition penalty.
    seen: BTreeSet<u32>,
    /// Tokens of the answer; kept only for the presence and frequency penalties.
    counts: BTreeMap<u32, u32>,
}

impl RequestSampler {
    pub(crate) fn new(request: &TokenRequest) -> Self {
        let mut sampler = Self {
            sampling: request.sampling.clone(),
            stop_tokens: request.stop_tokens.clone(),
            min_tokens: request.min_tokens,
            generated_tokens: 0,
            seen: BTreeSet::new(),
            counts: BTreeMap::new(),
        };
        if sampler.repeats() {
            sampler.seen.extend(&request.prompt);
        }
        sampler
    }

    /// Books a token of the answer.
    pub(crate) fn accept(&mut self, token: u32) {
        self.generated_tokens += 1;
        if self.repeats() {
            self.seen.insert(token);
        }
        if self.sampling.presence_penalty != 0.0 || self.sampling.frequency_penalty != 0.0 {
            *self.counts.entry(token).or_default() += 1;
        }
    }

    /// How the token at `position` of the sequence is chosen.
    pub(crate) fn row(&self, position: u64) -> SampleRow {
        let sampling = &self.sampling;
        let too_early = self.generated_tokens < self.min_tokens;
        SampleRow {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            seed: sampling.seed,
            position,
            repetition_penalty: sampling.repetition_penalty,
            seen: self.seen.iter().copied().collect(),
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            generated: self.counts.iter().map(|(token, count)| (*token, *count)).collect(),
            logit_bias: sampling.logit_bias.clone(),
            banned: if too_early { self.stop_tokens.clone() } else { Vec::new() },
            allowed: None,
            top_logprobs: None,
        }
    }

    fn repeats(&self) -> bool {
        self.sampling.repetition_penalty != 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sampling: Sampling, min_tokens: u32) -> TokenRequest {
        TokenRequest {
            id: 1,
            prompt: vec![5, 6, 5],
            sampling,
            max_tokens: 9,
            min_tokens,
            stop_tokens: vec![2],
            boundaries: vec![],
            isolation: 0,
        }
    }

    #[test]
    fn stop_tokens_are_banned_until_enough_tokens_exist() {
        let mut sampler = RequestSampler::new(&request(Sampling::greedy(), 1));
        assert_eq!(sampler.row(3).banned, [2]);
        sampler.accept(9);
        assert!(sampler.row(4).banned.is_empty());
    }

    #[test]
    fn penalties_see_their_own_history() {
        let sampling =
            Sampling { repetition_penalty: 1.1, frequency_penalty: 0.5, ..Sampling::greedy() };
        let mut sampler = RequestSampler::new(&request(sampling, 0));
        sampler.accept(7);
        sampler.accept(7);
        let row = sampler.row(5);
        assert_eq!(row.seen, [5, 6, 7]);
        assert_eq!(row.generated, [(7, 2)]);
        let plain = RequestSampler::new(&request(Sampling::greedy(), 0)).row(3);
        assert!(plain.seen.is_empty() && plain.generated.is_empty());
    }
}
