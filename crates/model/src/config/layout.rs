//! How files cut matrices into tensors, where they differ.

use super::Architecture;

/// Which tensors hold a model's experts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExpertLayout {
    /// Three for each expert, or there are no experts.
    #[default]
    Single,
    /// Three for all experts of a layer, one expert after the other.
    Stacked,
    /// Two: in the first, each expert's gate rows come before its up rows.
    Fused,
}

/// Which tensors hold what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// The experts.
    pub experts: ExpertLayout,
    /// Whether q, k, v and z of a linear layer are one tensor, key head by key head.
    pub fused_qkvz: bool,
    /// Whether b and a of a linear layer are one tensor, key head by key head.
    pub fused_ba: bool,
}

impl Layout {
    /// The layout of the GGUF files that are written.
    pub(crate) fn gguf(architecture: Architecture) -> Self {
        let stacked = architecture.has_experts();
        Self {
            experts: if stacked { ExpertLayout::Stacked } else { ExpertLayout::Single },
            fused_qkvz: false,
            fused_ba: architecture == Architecture::Qwen3Next,
        }
    }
}
