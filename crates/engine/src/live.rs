//! What the engine keeps of a request beside the scheduler.

use crate::mask::GrammarState;
use crate::pooling::Pool;
use crate::sampler::RequestSampler;

/// See the module.
pub(crate) struct LiveRequest {
    pub(crate) sampler: RequestSampler,
    pub(crate) grammar: Option<GrammarState>,
    pub(crate) pool: Option<Pool>,
    /// Whether a step has worked on it.
    pub(crate) started: bool,
    /// Whether the device could once not tell which token was chosen.
    pub(crate) is_undecided: bool,
}

impl LiveRequest {
    /// Whether the request's next token depends on logits and draw alone, and the device can tell.
    pub(crate) fn is_plain(&self) -> bool {
        let goes_by_the_answer = self.grammar.is_some() || self.sampler.counts();
        !goes_by_the_answer && self.pool.is_none() && !self.is_undecided
    }

    /// Books a token of the answer.
    pub(crate) fn accept(&mut self, token: u32) {
        self.sampler.accept(token);
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token, self.sampler.stop_tokens());
        }
    }
}
