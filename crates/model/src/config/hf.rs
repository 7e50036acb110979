//! The configuration from `config.json`.
//!
//! The text model's fields are in `text_config` or at the top; rotary settings are in
//! `rope_parameters` or beside the other fields. Whatever would change the result and is not
//! implemented is refused by name rather than ignored.

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    Architecture, DeltaConfig, Keys, LayerKind, Layout, MOST_LAYERS, ModelConfig, MoeConfig,
    ValueHeadOrder, interval_layers,
};
use crate::Error;

/// Values of `model_type` of a text model, and what they mean.
///
/// The text of `qwen3_vl` is `qwen3`: its rotation has three positions, which are equal for text.
const TYPES: [(&str, Architecture); 9] = [
    ("qwen3", Architecture::Qwen3),
    ("qwen3_5", Architecture::Qwen35),
    ("qwen3_5_text", Architecture::Qwen35),
    ("qwen3_5_moe", Architecture::Qwen35Moe),
    ("qwen3_5_moe_text", Architecture::Qwen35Moe),
    ("qwen3_moe", Architecture::Qwen3Moe),
    ("qwen3_next", Architecture::Qwen3Next),
    ("qwen3_vl", Architecture::Qwen3),
    ("qwen3_vl_text", Architecture::Qwen3),
];

const KEYS: Keys = Keys {
    vocab_size: "vocab_size",
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
    rotary_dim: "partial_rotary_factor * head_dim",
    rope_theta: "rope_theta",
    ffn: "intermediate_size",
    eps: "rms_norm_eps",
    context_length: "max_position_embeddings",
    mtp_layers: "mtp_num_hidden_layers",
    delta_key_heads: "linear_num_key_heads",
    delta_value_heads: "linear_num_value_heads",
    delta_key_dim: "linear_key_head_dim",
    delta_value_dim: "linear_value_head_dim",
    delta_conv_kernel: "linear_conv_kernel_dim",
    experts: "num_experts",
    experts_used: "num_experts_per_tok",
    expert_ffn: "moe_intermediate_size",
    shared_ffn: "shared_expert_intermediate_size",
};

/// A JSON object with the file it came from.
#[derive(Clone, Copy)]
pub(crate) struct Json<'a> {
    file: &'a Path,
    fields: &'a Map<String, Value>,
}

impl<'a> Json<'a> {
    pub(crate) fn new(file: &'a Path, value: &'a Value) -> Result<Self, Error> {
        let wrong = || Error::bad(file, "JSON", "is not an object");
        Ok(Self { file, fields: value.as_object().ok_or_else(wrong)? })
    }

    /// All fields in the order of the file.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.fields.iter()
    }

    /// The value of `key`; `null` counts as absent.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    fn find<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let wrong = || self.wrong(key, expected, value);
        read(value).ok_or_else(wrong).map(Some)
    }

    fn wrong(&self, key: &str, expected: &str, value: &Value) -> Error {
        let text = value.to_string();
        let shown: String = text.chars().take(60).collect();
        Error::config(self.file, key, expected, shown)
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| Error::missing(self.file, format!("`{key}`")))
    }

    pub(crate) fn find_usize(&self, key: &str) -> Result<Option<usize>, Error> {
        let read = |value: &Value| value.as_u64().and_then(|x| usize::try_from(x).ok());
        self.find(key, "a whole number that is not negative", read)
    }

    fn usize(&self, key: &str) -> Result<usize, Error> {
        self.required(key, self.find_usize(key)?)
    }

    fn find_f64(&self, key: &str) -> Result<Option<f64>, Error> {
        self.find(key, "a number", Value::as_f64)
    }

    fn find_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.find(key, "true or false", Value::as_bool)
    }

    pub(crate) fn find_str(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.find(key, "a text", Value::as_str)
    }

    pub(crate) fn find_object(&self, key: &str) -> Result<Option<Self>, Error> {
        let fields = self.find(key, "an object", Value::as_object)?;
        Ok(fields.map(|fields| Self { file: self.file, fields }))
    }

    pub(crate) fn find_list(&self, key: &str) -> Result<Option<&'a Vec<Value>>, Error> {
        self.find(key, "a list", Value::as_array)
    }

    /// Refuses any value of `key` but `only` or none.
    fn only(&self, key: &str, only: &Value, named: &str) -> Result<(), Error> {
        match self.value(key) {
            Some(value) if value != only => Err(self.wrong(key, named, value)),
            _ => Ok(()),
        }
    }
}

/// The configuration of the text model in `config.json`.
pub(crate) fn from_hf(file: &Path, json: &Value) -> Result<ModelConfig, Error> {
    let top = Json::new(file, json)?;
    let text = top.find_object("text_config")?.unwrap_or(top);
    let architecture = architecture(top)?;
    refuse_unimplemented(top, text)?;

    let hybrid = architecture.is_hybrid();
    let head_dim = head_dim(text, architecture)?;
    let rope = Rope::read(text)?;
    let fraction = rope.fraction.unwrap_or(if hybrid { 0.25 } else { 1.0 });
    let layers = layers(text, hybrid)?;
    let delta = if hybrid { Some(delta(text)?) } else { None };
    // Some composite files say it beside the text model's own fields.
    let tied = match top.find_bool("tie_word_embeddings")? {
        Some(tied) => tied,
        None => text.find_bool("tie_word_embeddings")?.unwrap_or(false),
    };
    let config = ModelConfig {
        architecture,
        vocab_size: text.usize(KEYS.vocab_size)?,
        hidden: text.usize(KEYS.hidden)?,
        layers,
        heads: text.usize(KEYS.heads)?,
        kv_heads: text.usize(KEYS.kv_heads)?,
        head_dim,
        // A fraction that is not a number becomes 0, which the check refuses.
        rotary_dim: (fraction * head_dim as f64) as usize,
        rope_theta: text.required(KEYS.rope_theta, rope.theta)?,
        rope_sections: rope.sections,
        attn_output_gate: hybrid && text.find_bool("attn_output_gate")?.unwrap_or(true),
        ffn: if architecture.has_experts() { 0 } else { text.usize(KEYS.ffn)? },
        moe: if architecture.has_experts() { Some(moe(text, architecture)?) } else { None },
        eps: text.required(KEYS.eps, text.find_f64(KEYS.eps)?)? as f32,
        tied,
        context_length: text.usize(KEYS.context_length)?,
        delta,
        norm_plus_one: hybrid,
        a_log_is_log: true,
        mtp_layers: text.find_usize(KEYS.mtp_layers)?.unwrap_or(0),
        layout: Layout::default(),
    };
    config.check(file, &KEYS)?;
    Ok(config)
}

/// Absent, it is what the reference implementation assumes.
fn head_dim(text: Json<'_>, architecture: Architecture) -> Result<usize, Error> {
    if let Some(head_dim) = text.find_usize(KEYS.head_dim)? {
        return Ok(head_dim);
    }
    Ok(match architecture {
        Architecture::Qwen3 => 128,
        Architecture::Qwen3Moe => {
            text.usize(KEYS.hidden)?.checked_div(text.usize(KEYS.heads)?).unwrap_or(0)
        }
        Architecture::Qwen35 | Architecture::Qwen35Moe | Architecture::Qwen3Next => 256,
    })
}

fn architecture(top: Json<'_>) -> Result<Architecture, Error> {
    let found = top.required("model_type", top.find_str("model_type")?)?;
    let known = TYPES.iter().find(|(name, _)| *name == found);
    known.map(|(_, architecture)| *architecture).ok_or_else(|| Error::UnsupportedArchitecture {
        file: top.file.to_path_buf(),
        found: found.to_owned(),
        known: TYPES.map(|(name, _)| name).join(", "),
    })
}

/// Settings that change what the network computes, and are not implemented.
fn refuse_unimplemented(top: Json<'_>, text: Json<'_>) -> Result<(), Error> {
    if top.value("quantization_config").is_some() || text.value("quantization_config").is_some() {
        let reason = "holds quantised safetensors weights, which are not read; use BF16 or GGUF";
        return Err(Error::refused(top.file, reason));
    }
    text.only("hidden_act", &"silu".into(), "`silu`")?;
    text.only("attention_bias", &false.into(), "false")?;
    text.only("use_sliding_window", &false.into(), "false")?;
    let every = "1: mixtures of experts in some layers only are not implemented";
    text.only("decoder_sparse_step", &1.into(), every)?;
    let none = "an empty list: mixtures of experts in some layers only are not implemented";
    text.only("mlp_only_layers", &Value::Array(Vec::new()), none)
}

fn layers(text: Json<'_>, hybrid: bool) -> Result<Vec<LayerKind>, Error> {
    let count = text.usize(KEYS.layers)?;
    if count > MOST_LAYERS {
        // Before a list of that length is made.
        let expected = format!("1 to {MOST_LAYERS}");
        return Err(Error::config(text.file, KEYS.layers, expected, count.to_string()));
    }
    let Some(list) = text.find_list("layer_types")? else {
        if !hybrid {
            return Ok(vec![LayerKind::FullAttention; count]);
        }
        let interval = text.find_usize("full_attention_interval")?.unwrap_or(4);
        if interval == 0 {
            let key = "full_attention_interval";
            return Err(Error::config(text.file, key, "at least 1", "0"));
        }
        return Ok(interval_layers(count, interval));
    };
    if list.len() != count {
        let expected = format!("{count} entries ({})", KEYS.layers);
        return Err(Error::config(text.file, "layer_types", expected, list.len().to_string()));
    }
    let kind = |value: &Value| match value.as_str() {
        Some("full_attention") => Ok(LayerKind::FullAttention),
        Some("linear_attention") if hybrid => Ok(LayerKind::LinearAttention),
        _ if hybrid => {
            Err(text.wrong("layer_types", "`full_attention` or `linear_attention`", value))
        }
        _ => Err(text.wrong("layer_types", "`full_attention`", value)),
    };
    list.iter().map(kind).collect()
}

fn delta(text: Json<'_>) -> Result<DeltaConfig, Error> {
    Ok(DeltaConfig {
        key_heads: text.usize(KEYS.delta_key_heads)?,
        value_heads: text.usize(KEYS.delta_value_heads)?,
        key_dim: text.usize(KEYS.delta_key_dim)?,
        value_dim: text.usize(KEYS.delta_value_dim)?,
        conv_kernel: text.usize(KEYS.delta_conv_kernel)?,
        value_head_order: ValueHeadOrder::Grouped,
    })
}

fn moe(text: Json<'_>, architecture: Architecture) -> Result<MoeConfig, Error> {
    const RENORMALISE: &str = "norm_topk_prob";
    let experts = match text.find_usize(KEYS.experts)? {
        None => text.find_usize("num_local_experts")?,
        found => found,
    };
    let renormalise = match architecture {
        // The reference implementation leaves no choice.
        Architecture::Qwen35Moe => {
            text.only(RENORMALISE, &true.into(), "true")?;
            true
        }
        _ => text.find_bool(RENORMALISE)?.unwrap_or(architecture == Architecture::Qwen3Next),
    };
    let shared = architecture.has_shared_expert();
    Ok(MoeConfig {
        experts: text.required(KEYS.experts, experts)?,
        experts_used: text.usize(KEYS.experts_used)?,
        ffn: text.usize(KEYS.expert_ffn)?,
        shared_ffn: if shared { Some(text.usize(KEYS.shared_ffn)?) } else { None },
        renormalise,
    })
}

/// The rotary settings.
struct Rope {
    theta: Option<f64>,
    fraction: Option<f64>,
    sections: Option<Vec<usize>>,
}

impl Rope {
    fn read(text: Json<'_>) -> Result<Self, Error> {
        const FRACTION: &str = "partial_rotary_factor";
        let nested = text.find_object("rope_parameters")?;
        let mut rope = Self {
            theta: text.find_f64(KEYS.rope_theta)?,
            fraction: text.find_f64(FRACTION)?,
            sections: None,
        };
        for part in [text.find_object("rope_scaling")?, nested].into_iter().flatten() {
            for key in ["rope_type", "type"] {
                let Some(kind) = part.find_str(key)? else { continue };
                if !matches!(kind, "default" | "mrope") {
                    let expected = "`default`: scaled rotations are not implemented";
                    return Err(Error::config(part.file, key, expected, kind));
                }
            }
            rope.theta = part.find_f64(KEYS.rope_theta)?.or(rope.theta);
            rope.fraction = part.find_f64(FRACTION)?.or(rope.fraction);
            if let Some(list) = part.find_list("mrope_section")? {
                let sizes: Option<Vec<usize>> =
                    list.iter().map(|x| x.as_u64().and_then(|x| x.try_into().ok())).collect();
                let wrong = || Error::config(part.file, "mrope_section", "whole numbers", "others");
                rope.sections = Some(sizes.ok_or_else(wrong)?);
            }
        }
        Ok(rope)
    }
}
