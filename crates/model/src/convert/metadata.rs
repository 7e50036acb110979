//! The sizes of the model as GGUF metadata.

use std::path::Path;

use crate::gguf::write::{Header, NewValue};
use crate::{Architecture, DeltaConfig, Error, LayerKind, Layout, ModelConfig, MoeConfig, Recipe};

pub(super) fn put(
    header: &mut Header,
    source: &Path,
    config: &ModelConfig,
    recipe: Recipe,
) -> Result<(), Error> {
    let arch = config.architecture.gguf_name();
    header.put("general.architecture", arch);
    header.put("general.type", "model");
    header.put("general.file_type", NewValue::U32(recipe.file_type()));
    header.put("general.quantization_version", NewValue::U32(2));
    let mut sizes = Sizes { header, arch };
    sizes.count("block_count", config.layers.len() + config.mtp_layers);
    sizes.count("context_length", config.context_length);
    sizes.count("embedding_length", config.hidden);
    match &config.moe {
        Some(moe) => sizes.mixture(source, moe)?,
        None => sizes.count("feed_forward_length", config.ffn),
    }
    sizes.count("attention.head_count", config.heads);
    sizes.count("attention.head_count_kv", config.kv_heads);
    sizes.count("attention.key_length", config.head_dim);
    sizes.count("attention.value_length", config.head_dim);
    sizes.number("attention.layer_norm_rms_epsilon", config.eps);
    sizes.number("rope.freq_base", config.rope_theta as f32);
    sizes.count("rope.dimension_count", config.rotary_dim);
    sizes.count("vocab_size", config.vocab_size);
    if let Some(delta) = &config.delta {
        sizes.hybrid(config, delta);
        sizes.count("full_attention_interval", interval(source, &config.layers)?);
    }
    if config.mtp_layers > 0 {
        sizes.count("nextn_predict_layers", config.mtp_layers);
    }
    Ok(())
}

/// The configuration that a reader finds in the file that is made of this one.
pub(crate) fn config_of_file(config: &ModelConfig) -> ModelConfig {
    let architecture = config.architecture;
    let sections = || sections(config).into_iter().filter_map(|n| n.try_into().ok()).collect();
    let has_sections = config.delta.is_some() && architecture != Architecture::Qwen3Next;
    ModelConfig {
        rope_theta: f64::from(config.rope_theta as f32),
        rope_sections: has_sections.then(sections),
        delta: config.delta.map(|delta| DeltaConfig {
            value_head_order: architecture.gguf_value_heads(),
            ..delta
        }),
        norm_plus_one: false,
        a_log_is_log: false,
        layout: Layout::gguf(architecture),
        ..config.clone()
    }
}

/// A header and the prefix of the keys that follow.
struct Sizes<'a> {
    header: &'a mut Header,
    arch: &'static str,
}

impl Sizes<'_> {
    fn count(&mut self, key: &str, value: usize) {
        // The configuration's check keeps all sizes far below 32 bits.
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        self.header.put(&format!("{}.{key}", self.arch), NewValue::U32(value));
    }

    fn number(&mut self, key: &str, value: f32) {
        self.header.put(&format!("{}.{key}", self.arch), NewValue::F32(value));
    }

    fn mixture(&mut self, source: &Path, moe: &MoeConfig) -> Result<(), Error> {
        if !moe.renormalise {
            let reason = "has experts whose weights do not add up to 1 (`norm_topk_prob` is \
                          false), which readers of GGUF files do not expect";
            return Err(Error::refused(source, reason));
        }
        self.count("expert_count", moe.experts);
        self.count("expert_used_count", moe.experts_used);
        self.count("expert_feed_forward_length", moe.ffn);
        if let Some(ffn) = moe.shared_ffn {
            self.count("expert_shared_feed_forward_length", ffn);
        }
        Ok(())
    }

    fn hybrid(&mut self, config: &ModelConfig, delta: &DeltaConfig) {
        if config.architecture != Architecture::Qwen3Next {
            let key = format!("{}.rope.dimension_sections", self.arch);
            self.header.put(&key, NewValue::I32s(sections(config)));
        }
        self.count("ssm.conv_kernel", delta.conv_kernel);
        self.count("ssm.state_size", delta.key_dim);
        self.count("ssm.group_count", delta.key_heads);
        self.count("ssm.time_step_rank", delta.value_heads);
        self.count("ssm.inner_size", delta.value_size());
    }
}

/// Pairs of the time, height and width positions, and a fourth axis that no model uses.
///
/// Where the checkpoint gives none, the pairs are shared out as in the published models.
fn sections(config: &ModelConfig) -> Vec<i32> {
    let pairs = config.rotary_dim / 2;
    let third = pairs.div_ceil(3).min(pairs);
    let second = third.min(pairs - third);
    let published = || vec![third, second, pairs - third - second];
    let mut sections = config.rope_sections.clone().unwrap_or_else(published);
    sections.resize(4, 0);
    sections.into_iter().map(|n| i32::try_from(n).unwrap_or(i32::MAX)).collect()
}

/// Every how many layers there is an attention layer; the format has no list of kinds.
fn interval(source: &Path, layers: &[LayerKind]) -> Result<usize, Error> {
    let first = layers.iter().position(|&kind| kind == LayerKind::FullAttention);
    let interval = first.map_or(layers.len() + 1, |first| first + 1);
    let regular = layers
        .iter()
        .enumerate()
        .all(|(i, &kind)| (kind == LayerKind::FullAttention) == (i + 1).is_multiple_of(interval));
    if regular {
        return Ok(interval);
    }
    let reason = "has attention layers at irregular places, which a GGUF file cannot express";
    Err(Error::refused(source, reason))
}
