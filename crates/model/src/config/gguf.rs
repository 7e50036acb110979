//! The configuration from GGUF metadata.

use super::{
    Architecture, DeltaConfig, Keys, LayerKind, Layout, MOST_LAYERS, ModelConfig, MoeConfig,
    interval_layers,
};
use crate::Error;
use crate::gguf::{Array, FromValue, Gguf, Metadata};

/// Without the architecture and the dot that begin each of them.
const KEYS: Keys = Keys {
    vocab_size: "vocab_size",
    hidden: "embedding_length",
    layers: "block_count",
    heads: "attention.head_count",
    kv_heads: "attention.head_count_kv",
    head_dim: "attention.key_length",
    rotary_dim: "rope.dimension_count",
    rope_theta: "rope.freq_base",
    ffn: "feed_forward_length",
    eps: "attention.layer_norm_rms_epsilon",
    context_length: "context_length",
    mtp_layers: "nextn_predict_layers",
    delta_key_heads: "ssm.group_count",
    delta_value_heads: "ssm.time_step_rank",
    delta_key_dim: "ssm.state_size",
    delta_value_dim: "ssm.inner_size",
    delta_conv_kernel: "ssm.conv_kernel",
    experts: "expert_count",
    experts_used: "expert_used_count",
    expert_ffn: "expert_feed_forward_length",
    shared_ffn: "expert_shared_feed_forward_length",
};

/// The metadata of one architecture.
#[derive(Clone, Copy)]
struct Fields<'a> {
    metadata: Metadata<'a>,
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn get<T: FromValue<'a>>(&self, key: &str) -> Result<T, Error> {
        self.metadata.get(&self.key(key))
    }

    fn find<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>, Error> {
        self.metadata.find(&self.key(key))
    }

    fn wrong(&self, key: &str, expected: impl Into<String>, found: &dyn ToString) -> Error {
        Error::config(self.metadata.file(), self.key(key), expected, found.to_string())
    }
}

/// The configuration of the model in `file`.
pub(crate) fn from_gguf(file: &Gguf) -> Result<ModelConfig, Error> {
    let metadata = file.metadata();
    let architecture = architecture(metadata)?;
    let fields = Fields { metadata, prefix: architecture.gguf_name() };
    let hybrid = architecture.is_hybrid();
    let heads: usize = fields.get(KEYS.heads)?;
    let hidden: usize = fields.get(KEYS.hidden)?;
    let head_dim = match fields.find(KEYS.head_dim)? {
        Some(head_dim) => head_dim,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    let value_length = fields.find::<usize>("attention.value_length")?;
    if let Some(length) = value_length.filter(|&length| length != head_dim) {
        let expected = format!("{head_dim} ({})", fields.key(KEYS.head_dim));
        return Err(fields.wrong("attention.value_length", expected, &length));
    }
    let scaling = fields.find::<&str>("rope.scaling.type")?;
    if let Some(kind) = scaling.filter(|&kind| kind != "none") {
        let expected = "`none`: scaled rotations are not implemented";
        return Err(fields.wrong("rope.scaling.type", expected, &kind));
    }
    let mtp_layers = fields.find(KEYS.mtp_layers)?.unwrap_or(0);
    let config = ModelConfig {
        architecture,
        vocab_size: vocab_size(file, fields)?,
        hidden,
        layers: layers(fields, hybrid, mtp_layers)?,
        heads,
        kv_heads: fields.find(KEYS.kv_heads)?.unwrap_or(heads),
        head_dim,
        rotary_dim: fields.find(KEYS.rotary_dim)?.unwrap_or(head_dim),
        rope_theta: fields.find(KEYS.rope_theta)?.unwrap_or(10_000.0),
        rope_sections: fields.find::<Vec<usize>>("rope.dimension_sections")?,
        attn_output_gate: hybrid,
        ffn: if architecture.has_experts() { 0 } else { fields.get(KEYS.ffn)? },
        moe: if architecture.has_experts() { Some(moe(file, fields, architecture)?) } else { None },
        eps: fields.get(KEYS.eps)?,
        tied: file.tensor("output.weight").is_none(),
        context_length: fields.get(KEYS.context_length)?,
        delta: if hybrid { Some(delta(fields, architecture)?) } else { None },
        norm_plus_one: false,
        a_log_is_log: false,
        mtp_layers,
        layout: Layout::default(),
    };
    // The check names the keys as they are in the file.
    config.check(metadata.file(), &KEYS).map_err(|error| match error {
        Error::BadConfig { file, key, expected, found } => {
            Error::BadConfig { file, key: fields.key(&key), expected, found }
        }
        other => other,
    })?;
    Ok(config)
}

fn architecture(metadata: Metadata<'_>) -> Result<Architecture, Error> {
    let found: &str = metadata.get("general.architecture")?;
    let known = Architecture::ALL.iter().find(|known| known.gguf_name() == found);
    known.copied().ok_or_else(|| Error::UnsupportedArchitecture {
        file: metadata.file().to_path_buf(),
        found: found.to_owned(),
        known: Architecture::ALL.map(Architecture::gguf_name).join(", "),
    })
}

/// The rows of the embedding, with which a list of tokens must agree.
fn vocab_size(file: &Gguf, fields: Fields<'_>) -> Result<usize, Error> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let missing = || Error::missing(file.path(), "tensor `token_embd.weight`");
    let rows = file.tensor("token_embd.weight").ok_or_else(missing)?.shape[0];
    let expected = || format!("{rows}, the rows of `token_embd.weight`");
    if let Some(size) = fields.find::<usize>(KEYS.vocab_size)?.filter(|&size| size != rows) {
        return Err(fields.wrong(KEYS.vocab_size, expected(), &size));
    }
    let tokens = fields.metadata.find::<Array<'_>>(TOKENS)?;
    if let Some(tokens) = tokens.filter(|tokens| tokens.len() != rows) {
        let found = format!("{} tokens", tokens.len());
        return Err(Error::config(file.path(), TOKENS, expected(), found));
    }
    Ok(rows)
}

/// The layers of the model proper: the block count includes those that predict further tokens.
fn layers(fields: Fields<'_>, hybrid: bool, mtp: usize) -> Result<Vec<LayerKind>, Error> {
    let blocks: usize = fields.get(KEYS.layers)?;
    let Some(count) = blocks.checked_sub(mtp).filter(|count| (1..=MOST_LAYERS).contains(count))
    else {
        let expected = format!("1 to {MOST_LAYERS} and {mtp} for {}", KEYS.mtp_layers);
        return Err(fields.wrong(KEYS.layers, expected, &blocks));
    };
    if !hybrid {
        return Ok(vec![LayerKind::FullAttention; count]);
    }
    let interval = fields.find("full_attention_interval")?.unwrap_or(4);
    if interval == 0 {
        return Err(fields.wrong("full_attention_interval", "at least 1", &interval));
    }
    Ok(interval_layers(count, interval))
}

fn delta(fields: Fields<'_>, architecture: Architecture) -> Result<DeltaConfig, Error> {
    let value_heads: usize = fields.get(KEYS.delta_value_heads)?;
    let inner: usize = fields.get(KEYS.delta_value_dim)?;
    if value_heads == 0 || !inner.is_multiple_of(value_heads) {
        let expected = format!("a multiple of {value_heads} ({})", KEYS.delta_value_heads);
        return Err(fields.wrong(KEYS.delta_value_dim, expected, &inner));
    }
    Ok(DeltaConfig {
        key_heads: fields.get(KEYS.delta_key_heads)?,
        value_heads,
        key_dim: fields.get(KEYS.delta_key_dim)?,
        value_dim: inner / value_heads,
        conv_kernel: fields.get(KEYS.delta_conv_kernel)?,
        value_head_order: architecture.gguf_value_heads(),
    })
}

fn moe(file: &Gguf, fields: Fields<'_>, architecture: Architecture) -> Result<MoeConfig, Error> {
    const SOFTMAX: u32 = 1;
    let gating = fields.find::<u32>("expert_gating_func")?;
    if let Some(function) = gating.filter(|&function| function != SOFTMAX) {
        return Err(fields.wrong("expert_gating_func", "1, the softmax", &function));
    }
    let scale = fields.find::<f32>("expert_weights_scale")?;
    // Zero means that the weights are not scaled.
    if let Some(scale) = scale.filter(|scale| ![0.0, 1.0].contains(scale)) {
        return Err(fields.wrong("expert_weights_scale", "1", &scale));
    }
    let ffn = fields.get(KEYS.expert_ffn)?;
    let shared_ffn = || {
        // Not every converter writes the width down.
        let tensor = file.tensor("blk.0.ffn_gate_shexp.weight");
        let found = tensor.map_or(ffn, |tensor| tensor.shape[0]);
        Ok::<_, Error>(fields.find(KEYS.shared_ffn)?.unwrap_or(found))
    };
    Ok(MoeConfig {
        experts: fields.get(KEYS.experts)?,
        experts_used: fields.get(KEYS.experts_used)?,
        ffn,
        shared_ffn: if architecture.has_shared_expert() { Some(shared_ffn()?) } else { None },
        renormalise: fields.find("expert_weights_norm")?.unwrap_or(true),
    })
}
