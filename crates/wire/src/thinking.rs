//! How much a model is to think, in the words that dialects share.

use dialog::{Reasoning, ReasoningBudget};

use crate::WireError;
use crate::fields::Object;

/// What one field says about thinking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Whether to think at all.
    pub(crate) thinks: Option<bool>,
    /// For how long.
    pub(crate) budget: Option<ReasoningBudget>,
}

impl Wish {
    /// What this wish leaves open, the other one says.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { thinks: self.thinks.or(other.thinks), budget: self.budget.or(other.budget) }
    }

    pub(crate) fn reasoning(self) -> Reasoning {
        match self.thinks {
            None => Reasoning::ModelDefault,
            Some(false) => Reasoning::Off,
            Some(true) => Reasoning::On,
        }
    }
}

/// Efforts and the share of an answer's tokens that they give to thoughts, in percent. What is left
/// is for the words: thoughts that use up everything leave an empty answer.
const EFFORTS: [(&str, u8); 6] =
    [("minimal", 10), ("low", 20), ("medium", 50), ("high", 80), ("xhigh", 95), ("max", 95)];

/// Reads a field that names an effort.
pub(crate) fn effort(parent: &Object<'_>, name: &str) -> Result<Wish, WireError> {
    let Some(word) = parent.text(name)? else { return Ok(Wish::default()) };
    if word == "none" {
        return Ok(Wish { thinks: Some(false), budget: None });
    }
    let known = EFFORTS.iter().find(|(effort, _)| *effort == word);
    let (_, percent) = known.ok_or_else(|| {
        parent.wrong(name, "must be one of none, minimal, low, medium, high, xhigh, max")
    })?;
    Ok(Wish { thinks: Some(true), budget: Some(ReasoningBudget::Percent(*percent)) })
}

/// Reads a field that counts tokens, from `least` on.
pub(crate) fn budget(
    parent: &Object<'_>,
    name: &str,
    least: i64,
) -> Result<Option<ReasoningBudget>, WireError> {
    let tokens = parent.integer(name, least..=i64::from(i32::MAX))?;
    Ok(tokens.and_then(|tokens| u32::try_from(tokens).ok()).map(ReasoningBudget::Tokens))
}
