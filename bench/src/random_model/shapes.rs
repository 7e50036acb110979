//! Sizes of published models, as their `config.json` says them.

use clap::ValueEnum;
use serde_json::{Value, json};

/// A model whose sizes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    #[value(name = "qwen3-0.6b")]
    Qwen3_0_6b,
    #[value(name = "qwen3-1.7b")]
    Qwen3_1_7b,
    #[value(name = "qwen3-4b")]
    Qwen3_4b,
    #[value(name = "qwen3-8b")]
    Qwen3_8b,
    #[value(name = "qwen3-32b")]
    Qwen3_32b,
    #[value(name = "qwen3-30b-a3b")]
    Qwen3_30bA3b,
    #[value(name = "qwen3-next-80b-a3b")]
    Qwen3Next80bA3b,
    #[value(name = "qwen3.5-0.8b")]
    Qwen35_0_8b,
    #[value(name = "qwen3.5-2b")]
    Qwen35_2b,
    #[value(name = "qwen3.5-4b")]
    Qwen35_4b,
    #[value(name = "qwen3.5-9b")]
    Qwen35_9b,
    #[value(name = "qwen3.6-27b")]
    Qwen36_27b,
}

impl Shape {
    /// Its `config.json`.
    pub(crate) fn config(self) -> Value {
        use Shape as S;
        match self {
            S::Qwen3_0_6b => dense(28, 1024, 3072, 16, true),
            S::Qwen3_1_7b => dense(28, 2048, 6144, 16, true),
            S::Qwen3_4b => dense(36, 2560, 9728, 32, true),
            S::Qwen3_8b => dense(36, 4096, 12288, 32, false),
            S::Qwen3_32b => dense(64, 5120, 25600, 64, false),
            S::Qwen3_30bA3b => qwen3_30b_a3b(),
            S::Qwen3Next80bA3b => qwen3_next_80b_a3b(),
            S::Qwen35_0_8b => hybrid(24, 1024, 3584, [8, 2], 16, true),
            S::Qwen35_2b => hybrid(24, 2048, 6144, [8, 2], 16, true),
            S::Qwen35_4b => hybrid(32, 2560, 9216, [16, 4], 32, true),
            S::Qwen35_9b => hybrid(32, 4096, 12288, [16, 4], 32, false),
            S::Qwen36_27b => hybrid(64, 5120, 17408, [24, 4], 48, false),
        }
    }
}

fn dense(layers: u32, hidden: u32, ffn: u32, heads: u32, tied: bool) -> Value {
    json!({
        "model_type": "qwen3", "num_hidden_layers": layers, "hidden_size": hidden,
        "intermediate_size": ffn, "num_attention_heads": heads, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": tied,
        "rope_theta": 1e6, "rms_norm_eps": 1e-6, "max_position_embeddings": 40_960
    })
}

fn qwen3_30b_a3b() -> Value {
    json!({
        "model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048,
        "intermediate_size": 6144, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": false,
        "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
        "norm_topk_prob": true, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 40_960
    })
}

fn qwen3_next_80b_a3b() -> Value {
    json!({
        "model_type": "qwen3_next", "num_hidden_layers": 48, "hidden_size": 2048,
        "intermediate_size": 5120, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 256, "vocab_size": 151_936, "tie_word_embeddings": false,
        "full_attention_interval": 4, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim": 128,
        "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512, "norm_topk_prob": true,
        "partial_rotary_factor": 0.25, "rope_theta": 1e7, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 262_144
    })
}

/// `heads` of queries, and of keys and values.
fn hybrid(
    layers: u32,
    hidden: u32,
    ffn: u32,
    heads: [u32; 2],
    value_heads: u32,
    tied: bool,
) -> Value {
    json!({
        "model_type": "qwen3_5_text", "num_hidden_layers": layers, "hidden_size": hidden,
        "intermediate_size": ffn, "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1], "head_dim": 256, "vocab_size": 248_320,
        "tie_word_embeddings": tied, "full_attention_interval": 4, "attn_output_gate": true,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
        "linear_num_value_heads": value_heads, "linear_value_head_dim": 128,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 262_144,
        "rope_parameters": {
            "mrope_interleaved": true, "mrope_section": [11, 11, 10],
            "partial_rotary_factor": 0.25, "rope_theta": 1e7, "rope_type": "default"
        }
    })
}
