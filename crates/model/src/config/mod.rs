//! What a model is made of, in one form for every file format.

mod gguf;
mod hf;
mod layout;
mod moe;

use std::path::Path;

use crate::Error;

pub(crate) use gguf::from_gguf;
pub(crate) use hf::{Json, from_hf};
pub use layout::{ExpertLayout, Layout};
pub use moe::MoeConfig;

/// The families of networks that are implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Dense attention layers with norms on queries and keys.
    Qwen3,
    /// The same with a mixture of experts in every layer.
    Qwen3Moe,
    /// Gated DeltaNet layers with an attention layer among every few.
    Qwen35,
    /// The same with a mixture of experts and a shared one in every layer.
    Qwen35Moe,
    /// What came before `Qwen35Moe`: the same network, cut into other tensors.
    Qwen3Next,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Qwen3, Self::Qwen3Moe, Self::Qwen35, Self::Qwen35Moe, Self::Qwen3Next];

    /// The name in GGUF metadata.
    pub const fn gguf_name(self) -> &'static str {
        match self {
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Qwen35 => "qwen35",
            Self::Qwen35Moe => "qwen35moe",
            Self::Qwen3Next => "qwen3next",
        }
    }

    /// Whether some layers are linear attention.
    pub const fn is_hybrid(self) -> bool {
        matches!(self, Self::Qwen35 | Self::Qwen35Moe | Self::Qwen3Next)
    }

    /// Whether the feed-forward layers are mixtures of experts.
    pub const fn has_experts(self) -> bool {
        matches!(self, Self::Qwen3Moe | Self::Qwen35Moe | Self::Qwen3Next)
    }

    /// Whether every token uses one expert more, beside those chosen for it.
    pub const fn has_shared_expert(self) -> bool {
        self.is_hybrid() && self.has_experts()
    }

    /// The order of the value heads in GGUF files. Checkpoints have them grouped.
    pub(crate) const fn gguf_value_heads(self) -> ValueHeadOrder {
        match self {
            Self::Qwen35 | Self::Qwen35Moe => ValueHeadOrder::Tiled,
            Self::Qwen3 | Self::Qwen3Moe | Self::Qwen3Next => ValueHeadOrder::Grouped,
        }
    }
}

/// How a layer mixes positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// Softmax attention over all earlier positions.
    FullAttention,
    /// A gated delta rule with a state of fixed size.
    LinearAttention,
}

/// In which order the value heads of a linear layer lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueHeadOrder {
    /// Value head `h` belongs to key head `h / (value_heads / key_heads)`.
    Grouped,
    /// Value head `h` belongs to key head `h % key_heads`.
    Tiled,
}

/// The sizes of the linear attention layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaConfig {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, gates and states; a multiple of `key_heads`.
    pub value_heads: usize,
    /// Size of a query or key.
    pub key_dim: usize,
    /// Size of a value.
    pub value_dim: usize,
    /// Taps of the causal convolution.
    pub conv_kernel: usize,
    /// How value heads find their key head.
    pub value_head_order: ValueHeadOrder,
}

impl DeltaConfig {
    /// Channels of the convolution: queries, keys and values of all heads.
    pub const fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_size()
    }

    /// Values of all heads.
    pub const fn value_size(&self) -> usize {
        self.value_heads * self.value_dim
    }
}

/// A model's sizes and conventions. Every value has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding, which may be more than the tokenizer uses.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// The kind of each layer, without the one that only predicts further tokens.
    pub layers: Vec<LayerKind>,
    /// Query heads of an attention layer.
    pub heads: usize,
    /// Key and value heads of an attention layer; divides `heads`.
    pub kv_heads: usize,
    /// Size of a query, key or value of an attention layer.
    pub head_dim: usize,
    /// How many elements of a query or key are rotated; even, from the first one on.
    pub rotary_dim: usize,
    /// The base of the rotation's frequencies.
    pub rope_theta: f64,
    /// Pairs of each position axis in the rotation, if the file gives them. For text all axes
    /// are equal, so they change nothing.
    pub rope_sections: Option<Vec<usize>>,
    /// Whether the query matrix holds, per head, a query and then a gate of the same size.
    pub attn_output_gate: bool,
    /// Width of the feed-forward layer; 0 where all of them are mixtures of experts.
    pub ffn: usize,
    /// The mixtures of experts, if there are any: then every layer has one.
    pub moe: Option<MoeConfig>,
    /// What keeps the norms from dividing by zero.
    pub eps: f32,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// The longest sequence that the model was made for.
    pub context_length: usize,
    /// The linear layers, if there are any.
    pub delta: Option<DeltaConfig>,
    /// Whether norms are stored as `w` and applied as `1 + w` (all but the linear layers' own).
    pub norm_plus_one: bool,
    /// Whether `DeltaA` holds `A_log`; otherwise it holds `-exp(A_log)`.
    pub a_log_is_log: bool,
    /// Layers that predict the token after the next one: 0 or 1.
    pub mtp_layers: usize,
    /// Which tensors of the file hold what.
    pub layout: Layout,
}

/// The most of anything that a size can be; products of three of them fit in 64 bits.
const LARGEST: usize = 1 << 20;
const MOST_LAYERS: usize = 1024;
const MOST_TOKENS: usize = 1 << 24;

/// What a size is called in the file it came from, for errors.
pub(crate) struct Keys {
    pub(crate) vocab_size: &'static str,
    pub(crate) hidden: &'static str,
    pub(crate) layers: &'static str,
    pub(crate) heads: &'static str,
    pub(crate) kv_heads: &'static str,
    pub(crate) head_dim: &'static str,
    pub(crate) rotary_dim: &'static str,
    pub(crate) rope_theta: &'static str,
    pub(crate) ffn: &'static str,
    pub(crate) eps: &'static str,
    pub(crate) context_length: &'static str,
    pub(crate) mtp_layers: &'static str,
    pub(crate) delta_key_heads: &'static str,
    pub(crate) delta_value_heads: &'static str,
    pub(crate) delta_key_dim: &'static str,
    pub(crate) delta_value_dim: &'static str,
    pub(crate) delta_conv_kernel: &'static str,
    pub(crate) experts: &'static str,
    pub(crate) experts_used: &'static str,
    pub(crate) expert_ffn: &'static str,
    pub(crate) shared_ffn: &'static str,
}

impl ModelConfig {
    /// The configuration in a `config.json`, whose weights need not be there yet.
    ///
    /// # Errors
    ///
    /// What a load of the model would say of that file.
    pub fn from_hugging_face(file: &Path, json: &serde_json::Value) -> Result<Self, Error> {
        from_hf(file, json)
    }

    /// Refuses sizes that no model can have or that contradict each other.
    pub(crate) fn check(&self, file: &Path, keys: &Keys) -> Result<(), Error> {
        let range = |key: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::config(file, key, format!("{least} to {most}"), value.to_string()))
        };
        range(keys.vocab_size, self.vocab_size, 1, MOST_TOKENS)?;
        range(keys.hidden, self.hidden, 1, LARGEST)?;
        range(keys.layers, self.layers.len(), 1, MOST_LAYERS)?;
        range(keys.heads, self.heads, 1, LARGEST)?;
        range(keys.kv_heads, self.kv_heads, 1, self.heads)?;
        range(keys.head_dim, self.head_dim, 1, LARGEST)?;
        range(keys.rotary_dim, self.rotary_dim, 2, self.head_dim)?;
        match &self.moe {
            Some(moe) => moe.check(file, keys)?,
            None => range(keys.ffn, self.ffn, 1, LARGEST)?,
        }
        range(keys.context_length, self.context_length, 1, u32::MAX as usize)?;
        range(keys.mtp_layers, self.mtp_layers, 0, 1)?;
        let relation = |good: bool, key: &str, expected: String, found: usize| {
            if good { Ok(()) } else { Err(Error::config(file, key, expected, found.to_string())) }
        };
        let expected = format!("a divisor of {} ({})", self.heads, keys.heads);
        relation(self.heads.is_multiple_of(self.kv_heads), keys.kv_heads, expected, self.kv_heads)?;
        let even = self.rotary_dim.is_multiple_of(2);
        relation(even, keys.rotary_dim, "an even number".into(), self.rotary_dim)?;
        let number = |good: bool, key: &str, expected: &str, found: f64| {
            if good { Ok(()) } else { Err(Error::config(file, key, expected, found.to_string())) }
        };
        let theta = self.rope_theta;
        number(theta.is_finite() && theta >= 1.0, keys.rope_theta, "at least 1", theta)?;
        let eps = self.eps;
        number(eps > 0.0 && eps < 1.0, keys.eps, "between 0 and 1", eps.into())?;
        if let Some(delta) = &self.delta {
            range(keys.delta_key_heads, delta.key_heads, 1, LARGEST)?;
            range(keys.delta_value_heads, delta.value_heads, 1, LARGEST)?;
            range(keys.delta_key_dim, delta.key_dim, 1, LARGEST)?;
            range(keys.delta_value_dim, delta.value_dim, 1, LARGEST)?;
            range(keys.delta_conv_kernel, delta.conv_kernel, 2, 16)?;
            let good = delta.value_heads.is_multiple_of(delta.key_heads);
            let expected = format!("a multiple of {} ({})", delta.key_heads, keys.delta_key_heads);
            relation(good, keys.delta_value_heads, expected, delta.value_heads)?;
        }
        Ok(())
    }
}

/// The kinds of `count` layers of which every `interval`-th is an attention layer.
fn interval_layers(count: usize, interval: usize) -> Vec<LayerKind> {
    let kind = |layer: usize| match (layer + 1).is_multiple_of(interval) {
        true => LayerKind::FullAttention,
        false => LayerKind::LinearAttention,
    };
    (0..count).map(kind).collect()
}

#[cfg(test)]
mod tests;
