//! The tensors of a layer: which it has, their names in either format and their shapes.

use std::borrow::Cow;

use crate::config::{Architecture, ExpertLayout, LayerKind, ModelConfig, MoeConfig};

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
    /// `DeltaQkv` and `DeltaGate` in one: per key head q, k, its v and its z,
    /// `[channels + value_heads * value_dim, hidden]`.
    DeltaQkvz,
    /// `DeltaBeta` and `DeltaAlpha` in one: per key head its b and its a,
    /// `[2 * value_heads, hidden]`.
    DeltaBa,
    /// `[ffn, hidden]`.
    FfnGate,
    /// `[ffn, hidden]`.
    FfnUp,
    /// `[hidden, ffn]`.
    FfnDown,
    /// What chooses experts, `[experts, hidden]`.
    Router,
    /// Of one expert, `[expert_ffn, hidden]`.
    ExpertGate(usize),
    /// Of one expert, `[expert_ffn, hidden]`.
    ExpertUp(usize),
    /// Of one expert, `[hidden, expert_ffn]`.
    ExpertDown(usize),
    /// Of all experts, `[experts, expert_ffn, hidden]`.
    ExpertsGate,
    /// Of all experts, `[experts, expert_ffn, hidden]`.
    ExpertsUp,
    /// Both of all experts, `[experts, 2 * expert_ffn, hidden]`.
    ExpertsGateUp,
    /// Of all experts, `[experts, hidden, expert_ffn]`.
    ExpertsDown,
    /// How much of the shared expert a token gets, `[hidden]`.
    SharedMix,
    /// Of the shared expert, `[shared_ffn, hidden]`.
    SharedGate,
    /// Of the shared expert, `[shared_ffn, hidden]`.
    SharedUp,
    /// Of the shared expert, `[hidden, shared_ffn]`.
    SharedDown,
}

/// The tensors that a layer of this kind has in files of this layout.
pub(super) fn all(kind: LayerKind, config: &ModelConfig) -> impl Iterator<Item = Role> {
    use Role as R;
    let layout = config.layout;
    let mut roles = vec![R::AttnNorm];
    match kind {
        LayerKind::FullAttention => roles.extend([R::Q, R::K, R::V, R::QNorm, R::KNorm, R::O]),
        LayerKind::LinearAttention => {
            match layout.fused_qkvz {
                true => roles.push(R::DeltaQkvz),
                false => roles.extend([R::DeltaQkv, R::DeltaGate]),
            }
            match layout.fused_ba {
                true => roles.push(R::DeltaBa),
                false => roles.extend([R::DeltaBeta, R::DeltaAlpha]),
            }
            roles.extend([R::DeltaConv, R::DeltaDtBias, R::DeltaA, R::DeltaNorm, R::DeltaOut]);
        }
    }
    roles.push(R::PostNorm);
    match &config.moe {
        None => roles.extend([R::FfnGate, R::FfnUp, R::FfnDown]),
        Some(moe) => roles.extend(mixture(moe, layout.experts)),
    }
    roles.into_iter()
}

fn mixture(moe: &MoeConfig, layout: ExpertLayout) -> Vec<Role> {
    use Role as R;
    let mut roles = vec![R::Router];
    match layout {
        ExpertLayout::Single => {
            let one = |expert| [R::ExpertGate(expert), R::ExpertUp(expert), R::ExpertDown(expert)];
            roles.extend((0..moe.experts).flat_map(one));
        }
        ExpertLayout::Stacked => roles.extend([R::ExpertsGate, R::ExpertsUp, R::ExpertsDown]),
        ExpertLayout::Fused => roles.extend([R::ExpertsGateUp, R::ExpertsDown]),
    }
    if moe.shared_ffn.is_some() {
        roles.extend([R::SharedMix, R::SharedGate, R::SharedUp, R::SharedDown]);
    }
    roles
}

impl Role {
    /// The name after `layers.N.`.
    pub(super) fn hf(self) -> Cow<'static, str> {
        match self {
            Self::ExpertGate(e) => format!("mlp.experts.{e}.gate_proj.weight").into(),
            Self::ExpertUp(e) => format!("mlp.experts.{e}.up_proj.weight").into(),
            Self::ExpertDown(e) => format!("mlp.experts.{e}.down_proj.weight").into(),
            other => other.names(Architecture::Qwen3).0.into(),
        }
    }

    /// The name after `blk.N.`.
    pub(super) fn gguf(self, architecture: Architecture) -> Cow<'static, str> {
        match self {
            // As files had it before experts were stacked.
            Self::ExpertGate(e) => format!("ffn_gate.{e}.weight").into(),
            Self::ExpertUp(e) => format!("ffn_up.{e}.weight").into(),
            Self::ExpertDown(e) => format!("ffn_down.{e}.weight").into(),
            other => other.names(architecture).1.into(),
        }
    }

    /// Whether this decides what large matrices do, or filters.
    pub(super) const fn is_small(self) -> bool {
        matches!(
            self,
            Self::DeltaConv | Self::DeltaAlpha | Self::DeltaBeta | Self::DeltaBa | Self::Router
        )
    }

    /// The name after `layers.N.` and the name after `blk.N.`.
    const fn names(self, architecture: Architecture) -> (&'static str, &'static str) {
        match self {
            Self::AttnNorm => ("input_layernorm.weight", "attn_norm.weight"),
            Self::PostNorm if architecture.is_hybrid() => {
                ("post_attention_layernorm.weight", "post_attention_norm.weight")
            }
            Self::PostNorm => ("post_attention_layernorm.weight", "ffn_norm.weight"),
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
            Self::DeltaQkvz => ("linear_attn.in_proj_qkvz.weight", "ssm_in.weight"),
            Self::DeltaBa => ("linear_attn.in_proj_ba.weight", "ssm_ba.weight"),
            Self::Router => ("mlp.gate.weight", "ffn_gate_inp.weight"),
            Self::ExpertGate(_) | Self::ExpertsGate => {
                ("mlp.experts.gate_proj", "ffn_gate_exps.weight")
            }
            Self::ExpertUp(_) | Self::ExpertsUp => ("mlp.experts.up_proj", "ffn_up_exps.weight"),
            Self::ExpertDown(_) | Self::ExpertsDown => {
                ("mlp.experts.down_proj", "ffn_down_exps.weight")
            }
            Self::ExpertsGateUp => ("mlp.experts.gate_up_proj", "ffn_gate_up_exps.weight"),
            Self::SharedMix => ("mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight"),
            Self::SharedGate => ("mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"),
            Self::SharedUp => ("mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"),
            Self::SharedDown => ("mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"),
        }
    }

    /// The shape, outermost first.
    ///
    /// # Panics
    ///
    /// For a tensor of a kind of layer of which the configuration has no sizes.
    pub(super) fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let delta = || config.delta.expect("only a model with linear layers has these tensors");
        let moe = || config.moe.expect("only a model with experts has these tensors");
        let shared = || moe().shared_ffn.expect("only a shared expert has these tensors");
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
            Self::DeltaQkvz => vec![delta().channels() + delta().value_size(), hidden],
            Self::DeltaBa => vec![2 * delta().value_heads, hidden],
            Self::Router => vec![moe().experts, hidden],
            Self::ExpertGate(_) | Self::ExpertUp(_) => vec![moe().ffn, hidden],
            Self::ExpertDown(_) => vec![hidden, moe().ffn],
            Self::ExpertsGate | Self::ExpertsUp => vec![moe().experts, moe().ffn, hidden],
            Self::ExpertsGateUp => vec![moe().experts, 2 * moe().ffn, hidden],
            Self::ExpertsDown => vec![moe().experts, hidden, moe().ffn],
            Self::SharedMix => vec![hidden],
            Self::SharedGate | Self::SharedUp => vec![shared(), hidden],
            Self::SharedDown => vec![hidden, shared()],
        }
    }
}
