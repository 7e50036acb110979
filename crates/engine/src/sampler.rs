//! What a request's sampling parameters mean for its next token.

use std::collections::{BTreeMap, BTreeSet};

use kernels::sample::{SampleRow, TokenMask};

use crate::contract::{Sampling, TokenRequest};
use crate::part_limit::PartCount;

/// A smaller divisor could make an infinite logit of a finite one, and none is between the two.
const LEAST_PENALTY: f32 = 1e-6;

/// A request's parameters and the history that its penalties look at.
pub(crate) struct RequestSampler {
    sampling: Sampling,
    stop_tokens: Vec<u32>,
    min_tokens: u32,
    top_logprobs: Option<u8>,
    generated_tokens: u32,
    /// Tokens of prompt and answer; kept only for the repetition penalty.
    seen: BTreeSet<u32>,
    /// Tokens of the answer; kept only for the presence and frequency penalties.
    counts: BTreeMap<u32, u32>,
    part: Option<PartCount>,
}

impl RequestSampler {
    pub(crate) fn new(request: &TokenRequest) -> Self {
        let mut sampler = Self {
            sampling: request.sampling.clone(),
            stop_tokens: request.stop_tokens.clone(),
            min_tokens: request.min_tokens,
            top_logprobs: request.top_logprobs,
            generated_tokens: 0,
            seen: BTreeSet::new(),
            counts: BTreeMap::new(),
            part: request.part_limit.clone().map(PartCount::new),
        };
        if sampler.repeats() {
            sampler.seen.extend(&request.prompt);
        }
        sampler
    }

    /// Books a token of the answer.
    pub(crate) fn accept(&mut self, token: u32) {
        self.generated_tokens += 1;
        if let Some(part) = &mut self.part {
            part.accept(token);
        }
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
            repetition_penalty: sampling.repetition_penalty.max(LEAST_PENALTY),
            seen: self.seen.iter().copied().collect(),
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            generated: self.counts.iter().map(|(token, count)| (*token, *count)).collect(),
            logit_bias: sampling.logit_bias.clone(),
            banned: if too_early { self.stop_tokens.clone() } else { Vec::new() },
            allowed: self
                .part
                .as_ref()
                .and_then(PartCount::forced)
                .map(|id| [id].into_iter().collect()),
            top_logprobs: self.top_logprobs,
        }
    }

    /// Whether the tokens of the answer decide how the next one is chosen, beyond what a row says.
    pub(crate) fn counts(&self) -> bool {
        self.part.is_some()
    }

    /// The tokens by which the answer may end.
    pub(crate) fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// Whether the request's own rules may leave no token to choose.
    pub(crate) fn narrows(&self) -> bool {
        self.part.is_some() || !self.sampling.logit_bias.is_empty()
    }

    fn repeats(&self) -> bool {
        self.sampling.repetition_penalty != 1.0
    }
}

/// Lets a grammar have its say in how a row's token is chosen, unless there is no choice. Where it
/// allows nothing but the end, the answer ends, however short.
pub(crate) fn restrict(row: &mut SampleRow, mask: TokenMask) {
    if row.allowed.is_some() {
        return;
    }
    let mut words = mask.words().to_vec();
    for id in &row.banned {
        if let Some(word) = words.get_mut(*id as usize / 32) {
            *word &= !(1 << (id % 32));
        }
    }
    if words.iter().all(|word| *word == 0) {
        row.banned.clear();
    }
    row.allowed = Some(mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::PartLimit;

    fn request(sampling: Sampling, min_tokens: u32) -> TokenRequest {
        TokenRequest {
            sampling,
            min_tokens,
            stop_tokens: vec![2],
            ..TokenRequest::new(1, vec![5, 6, 5], 9)
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
    fn an_answer_that_is_whole_ends_before_its_least_number_of_tokens() {
        let sampler = RequestSampler::new(&request(Sampling::greedy(), 5));
        let mut row = sampler.row(3);
        restrict(&mut row, [2, 7].into_iter().collect());
        assert_eq!(row.banned, [2], "there is another way to go on");
        let mut row = sampler.row(3);
        restrict(&mut row, [2].into_iter().collect());
        assert!(row.banned.is_empty());
    }

    #[test]
    fn a_part_that_is_full_leaves_no_choice_to_anybody() {
        let limit = PartLimit { open: None, close: 7, most: 2, ending: vec![7] };
        let request = TokenRequest { part_limit: Some(limit), ..request(Sampling::greedy(), 0) };
        let mut sampler = RequestSampler::new(&request);
        assert_eq!(sampler.row(3).allowed, None);
        sampler.accept(9);
        let mut row = sampler.row(4);
        let only: TokenMask = [7].into_iter().collect();
        assert_eq!(row.allowed, Some(only.clone()));
        restrict(&mut row, [2, 9].into_iter().collect());
        assert_eq!(row.allowed, Some(only));
        sampler.accept(7);
        assert_eq!(sampler.row(5).allowed, None);
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
