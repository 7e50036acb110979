//! What each tensor is, what it is called in either format, and which shape it has.

use std::fmt;

use super::Role;
use super::role;
use crate::config::{LayerKind, ModelConfig};

/// A tensor of a model, whatever its file calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorName {
    /// `[vocab, hidden]`.
    Embedding,
    /// `[hidden]`.
    OutputNorm,
    /// `[vocab, hidden]`; absent if the embedding serves.
    Output,
    /// A tensor of a layer, counted from 0.
    Layer(usize, Role),
    /// A tensor of the layer that predicts the token after the next one.
    Mtp(MtpRole),
    /// A tensor of the attention block inside that layer.
    MtpLayer(Role),
}

/// What the prediction layer has beside its attention block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MtpRole {
    /// From the embedding of the next token and the hidden state, `[hidden, 2 * hidden]`.
    Fc,
    /// The norm of the embedding, `[hidden]`.
    EmbeddingNorm,
    /// The norm of the hidden state, `[hidden]`.
    HiddenNorm,
    /// The norm before the output matrix, `[hidden]`.
    Norm,
}

const MTP: [MtpRole; 4] = [MtpRole::Fc, MtpRole::EmbeddingNorm, MtpRole::HiddenNorm, MtpRole::Norm];

impl MtpRole {
    /// The name after `mtp.` and the name after `blk.N.nextn.`.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Fc => ("fc.weight", "eh_proj.weight"),
            Self::EmbeddingNorm => ("pre_fc_norm_embedding.weight", "enorm.weight"),
            Self::HiddenNorm => ("pre_fc_norm_hidden.weight", "hnorm.weight"),
            Self::Norm => ("norm.weight", "shared_head_norm.weight"),
        }
    }
}

impl TensorName {
    /// Every tensor that a model of this configuration has, layer by layer.
    pub fn all(config: &ModelConfig) -> Vec<Self> {
        let mut names = vec![Self::Embedding];
        for (layer, &kind) in config.layers.iter().enumerate() {
            names.extend(role::all(kind, config).map(|role| Self::Layer(layer, role)));
        }
        names.push(Self::OutputNorm);
        if !config.tied {
            names.push(Self::Output);
        }
        if config.mtp_layers > 0 {
            names.extend(Self::mtp(config));
        }
        names
    }

    /// Every tensor of the layer that predicts the token after the next one.
    pub(crate) fn mtp(config: &ModelConfig) -> impl Iterator<Item = Self> {
        let layer = role::all(LayerKind::FullAttention, config).map(Self::MtpLayer);
        MTP.into_iter().map(Self::Mtp).chain(layer)
    }

    /// The name in a GGUF file.
    pub fn gguf(self, config: &ModelConfig) -> String {
        let mtp = config.layers.len();
        match self {
            Self::Embedding => "token_embd.weight".into(),
            Self::OutputNorm => "output_norm.weight".into(),
            Self::Output => "output.weight".into(),
            Self::Layer(i, role) => format!("blk.{i}.{}", role.gguf(config.architecture)),
            Self::Mtp(role) => format!("blk.{mtp}.nextn.{}", role.names().1),
            Self::MtpLayer(role) => format!("blk.{mtp}.{}", role.gguf(config.architecture)),
        }
    }

    /// The name in safetensors files whose text model is at `prefix` (such as `model.`).
    pub fn hf(self, prefix: &str) -> String {
        match self {
            Self::Embedding => format!("{prefix}embed_tokens.weight"),
            Self::OutputNorm => format!("{prefix}norm.weight"),
            Self::Output => "lm_head.weight".into(),
            Self::Layer(i, role) => format!("{prefix}layers.{i}.{}", role.hf()),
            Self::Mtp(role) => format!("mtp.{}", role.names().0),
            Self::MtpLayer(role) => format!("mtp.layers.0.{}", role.hf()),
        }
    }

    /// The shape, outermost first.
    ///
    /// # Panics
    ///
    /// For a tensor of a linear layer if the configuration has none.
    pub fn shape(self, config: &ModelConfig) -> Vec<usize> {
        match self {
            Self::Embedding | Self::Output => vec![config.vocab_size, config.hidden],
            Self::OutputNorm => vec![config.hidden],
            Self::Layer(_, role) | Self::MtpLayer(role) => role.shape(config),
            Self::Mtp(MtpRole::Fc) => vec![config.hidden, 2 * config.hidden],
            Self::Mtp(_) => vec![config.hidden],
        }
    }

    /// Whether this is worth quantising: not the filters of a convolution, nor the small matrices
    /// that decide what the large ones do.
    pub fn is_matrix(self, config: &ModelConfig) -> bool {
        let small = match self {
            Self::Layer(_, role) | Self::MtpLayer(role) => role.is_small(),
            _ => false,
        };
        !small && self.shape(config).len() >= 2
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
