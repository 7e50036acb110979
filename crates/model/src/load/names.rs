//! What each tensor is, what it is called in either format, and which shape it has.

use std::fmt;

use crate::config::{Architecture, LayerKind, ModelConfig};

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

/// The tensors of a layer. Matrices are `[outputs, inputs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The norm before the mixer, `[hidden]`.
    AttnNorm,
    /// The norm before the feed-forward part, `[hidden]`.
    PostNorm,
    /// Queries, `[heads * head_dim, hidden]`; with a gate each head has query, then gate.
    Q,
    /// Keys, `[kv_heads * head_dim, hidden]`.
    K,
    /// Values, `[kv_heads * head_dim, hidden]`.
    V,
    /// Attention output, `[hidden, heads * head_dim]`.
    O,
    /// The norm of each query, `[head_dim]`.
    QNorm,
    /// The norm of each key, `[head_dim]`.
    KNorm,
    /// Queries, keys and values of a linear layer, `[channels, hidden]`.
    DeltaQkv,
    /// The output gate z, `[value_heads * value_dim, hidden]`.
    DeltaGate,
    /// The writing strength b, `[value_heads, hidden]`.
    DeltaBeta,
    /// The decay's input a, `[value_heads, hidden]`.
    DeltaAlpha,
    /// One filter per channel, `[channels, conv_kernel]`, the newest tap last.
    DeltaConv,
    /// What is added to a, `[value_heads]`.
    DeltaDtBias,
    /// The decay's rate, `[value_heads]`; see `ModelConfig::a_log_is_log`.
    DeltaA,
    /// The norm of each value head's output, `[value_dim]`.
    DeltaNorm,
    /// The linear layer's output, `[hidden, value_heads * value_dim]`.
    DeltaOut,
    /// `[ffn, hidden]`.
    FfnGate,
    /// `[ffn, hidden]`.
    FfnUp,
    /// `[hidden, ffn]`.
    FfnDown,
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

const ATTENTION: [Role; 11] = [
    Role::AttnNorm,
    Role::Q,
    Role::K,
    Role::V,
    Role::QNorm,
    Role::KNorm,
    Role::O,
    Role::PostNorm,
    Role::FfnGate,
    Role::FfnUp,
    Role::FfnDown,
];

const LINEAR: [Role; 14] = [
    Role::AttnNorm,
    Role::DeltaQkv,
    Role::DeltaGate,
    Role::DeltaBeta,
    Role::DeltaAlpha,
    Role::DeltaConv,
    Role::DeltaDtBias,
    Role::DeltaA,
    Role::DeltaNorm,
    Role::DeltaOut,
    Role::PostNorm,
    Role::FfnGate,
    Role::FfnUp,
    Role::FfnDown,
];

const MTP: [MtpRole; 4] = [MtpRole::Fc, MtpRole::EmbeddingNorm, MtpRole::HiddenNorm, MtpRole::Norm];

impl Role {
    /// The tensors that a layer of this kind has.
    pub const fn all(kind: LayerKind) -> &'static [Self] {
        match kind {
            LayerKind::FullAttention => &ATTENTION,
            LayerKind::LinearAttention => &LINEAR,
        }
    }

    /// The name after `layers.N.` and the name after `blk.N.`.
    const fn names(self, architecture: Architecture) -> (&'static str, &'static str) {
        match self {
            Self::AttnNorm => ("input_layernorm.weight", "attn_norm.weight"),
            Self::PostNorm => match architecture {
                Architecture::Qwen3 => ("post_attention_layernorm.weight", "ffn_norm.weight"),
                Architecture::Qwen35 => {
                    ("post_attention_layernorm.weight", "post_attention_norm.weight")
                }
            },
            Self::Q => ("self_attn.q_proj.weight", "attn_q.weight"),
            Self::K => ("self_attn.k_proj.weight", "attn_k.weight"),
            Self::V => ("self_attn.v_proj.weight", "attn_v.weight"),
            Self::O => ("self_attn.o_proj.weight", "attn_output.weight"),
            Self::QNorm => ("self_attn.q_norm.weight", "attn_q_norm.weight"),
            Self::KNorm => ("self_attn.k_norm.weight", "attn_k_norm.weight"),
            Self::DeltaQkv => ("linear_attn.in_proj_qkv.weight", "attn_qkv.weight"),
            Self::DeltaGate => ("linear_attn.in_proj_z.weight", "attn_gate.weight"),
            Self::DeltaBeta => ("linear_attn.in_proj_b.weight", "ssm_beta.weight"),
            Self::DeltaAlpha => ("linear_attn.in_proj_a.weight", "ssm_alpha.weight"),
            Self::DeltaConv => ("linear_attn.conv1d.weight", "ssm_conv1d.weight"),
            Self::DeltaDtBias => ("linear_attn.dt_bias", "ssm_dt.bias"),
            Self::DeltaA => ("linear_attn.A_log", "ssm_a"),
            Self::DeltaNorm => ("linear_attn.norm.weight", "ssm_norm.weight"),
            Self::DeltaOut => ("linear_attn.out_proj.weight", "ssm_out.weight"),
            Self::FfnGate => ("mlp.gate_proj.weight", "ffn_gate.weight"),
            Self::FfnUp => ("mlp.up_proj.weight", "ffn_up.weight"),
            Self::FfnDown => ("mlp.down_proj.weight", "ffn_down.weight"),
        }
    }
}

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
            names.extend(Role::all(kind).iter().map(|&role| Self::Layer(layer, role)));
        }
        names.push(Self::OutputNorm);
        if !config.tied {
            names.push(Self::Output);
        }
        if config.mtp_layers > 0 {
            names.extend(MTP.map(Self::Mtp));
            names.extend(ATTENTION.map(Self::MtpLayer));
        }
        names
    }

    /// The name in a GGUF file.
    pub fn gguf(self, config: &ModelConfig) -> String {
        let mtp = config.layers.len();
        match self {
            Self::Embedding => "token_embd.weight".into(),
            Self::OutputNorm => "output_norm.weight".into(),
            Self::Output => "output.weight".into(),
            Self::Layer(i, role) => format!("blk.{i}.{}", role.names(config.architecture).1),
            Self::Mtp(role) => format!("blk.{mtp}.nextn.{}", role.names().1),
            Self::MtpLayer(role) => format!("blk.{mtp}.{}", role.names(config.architecture).1),
        }
    }

    /// The name in safetensors files whose text model is at `prefix` (such as `model.`).
    pub fn hf(self, config: &ModelConfig, prefix: &str) -> String {
        match self {
            Self::Embedding => format!("{prefix}embed_tokens.weight"),
            Self::OutputNorm => format!("{prefix}norm.weight"),
            Self::Output => "lm_head.weight".into(),
            Self::Layer(i, role) => {
                format!("{prefix}layers.{i}.{}", role.names(config.architecture).0)
            }
            Self::Mtp(role) => format!("mtp.{}", role.names().0),
            Self::MtpLayer(role) => format!("mtp.layers.0.{}", role.names(config.architecture).0),
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

    /// Whether this is a matrix that is worth quantising: not the filters of a convolution.
    pub fn is_matrix(self, config: &ModelConfig) -> bool {
        let small =
            matches!(self, Self::Layer(_, Role::DeltaConv | Role::DeltaAlpha | Role::DeltaBeta));
        !small && self.shape(config).len() == 2
    }
}

impl Role {
    fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let delta = || config.delta.expect("only a model with linear layers has these tensors");
        match self {
            Self::AttnNorm | Self::PostNorm => vec![hidden],
            Self::Q if config.attn_output_gate => vec![2 * q, hidden],
            Self::Q => vec![q, hidden],
            Self::K | Self::V => vec![kv, hidden],
            Self::O => vec![hidden, q],
            Self::QNorm | Self::KNorm => vec![config.head_dim],
            Self::DeltaQkv => vec![delta().channels(), hidden],
            Self::DeltaGate => vec![delta().value_size(), hidden],
            Self::DeltaBeta | Self::DeltaAlpha => vec![delta().value_heads, hidden],
            Self::DeltaConv => vec![delta().channels(), delta().conv_kernel],
            Self::DeltaDtBias | Self::DeltaA => vec![delta().value_heads],
            Self::DeltaNorm => vec![delta().value_dim],
            Self::DeltaOut => vec![hidden, delta().value_size()],
            Self::FfnGate | Self::FfnUp => vec![ffn, hidden],
            Self::FfnDown => vec![hidden, ffn],
        }
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
