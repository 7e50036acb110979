//! Where a model's thoughts end when they have used up their budget.

use dialog::{GenerateRequest, Prompt, Reasoning, ReasoningBudget};

use crate::{Prepared, Specials, TextModel};

/// A limit on a model's thoughts, in its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThoughtLimit {
    /// The marker that begins them; `None` when the prompt has begun them.
    pub open: Option<u32>,
    /// The marker that ends them.
    pub close: u32,
    /// Tokens that they may have, the closing marker among them.
    pub most: u32,
    /// What ends them: the closing marker between line breaks, as models write it themselves.
    pub ending: Vec<u32>,
}

impl TextModel {
    /// The limit on the thoughts of an answer that may have `max_tokens`; `None` where there is no
    /// budget, or where the model has no markers to think between.
    ///
    /// Requirement 23: where no thoughts are wanted the budget is 0, so that a model whose template
    /// cannot be told so does not think either.
    pub fn thought_limit(
        &self,
        request: &GenerateRequest,
        prepared: &Prepared,
        max_tokens: u32,
    ) -> Option<ThoughtLimit> {
        if !matches!(request.prompt, Prompt::Chat(_)) {
            return None;
        }
        let most = match (request.reasoning, request.reasoning_budget) {
            (Reasoning::Off, _) => 0,
            (_, None) => return None,
            (_, Some(ReasoningBudget::Tokens(tokens))) => tokens,
            (_, Some(ReasoningBudget::Percent(percent))) => {
                let share = u64::from(max_tokens) * u64::from(percent) / 100;
                u32::try_from(share).unwrap_or(max_tokens)
            }
        };
        let close = self.marker_token(&self.reasoning.close)?;
        let open = match prepared.reasoning_open {
            true => None,
            false => Some(self.marker_token(&self.reasoning.open)?),
        };
        let ending = format!("\n{}\n\n", self.reasoning.close);
        let ending = self.tokenizer.encode(&ending, Specials::Parse).ok()?;
        Some(ThoughtLimit { open, close, most, ending })
    }
}
