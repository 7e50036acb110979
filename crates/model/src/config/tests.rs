//! Configurations as they are published, and with one value wrong.

use serde_json::{Value, json};

use super::*;

fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": null, "tie_word_embeddings": true, "use_sliding_window": false,
        "vocab_size": 151936
    })
}

fn qwen35() -> Value {
    json!({
        "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5",
        "image_token_id": 248056, "tie_word_embeddings": false,
        "text_config": {
            "attention_bias": false, "attn_output_gate": true, "full_attention_interval": 4,
            "head_dim": 256, "hidden_act": "silu", "hidden_size": 5120,
            "intermediate_size": 17408, "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128, "linear_num_key_heads": 16,
            "linear_num_value_heads": 48, "linear_value_head_dim": 128,
            "max_position_embeddings": 262144, "model_type": "qwen3_5_text",
            "mtp_num_hidden_layers": 1, "num_attention_heads": 24, "num_hidden_layers": 64,
            "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
            "rope_parameters": {
                "mrope_interleaved": true, "mrope_section": [11, 11, 10],
                "partial_rotary_factor": 0.25, "rope_theta": 10000000, "rope_type": "default"
            },
            "vocab_size": 248320
        },
        "vision_config": { "depth": 27, "hidden_size": 1152, "num_heads": 16 }
    })
}

fn qwen3_moe() -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false,
        "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "mlp_only_layers": [],
        "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true,
        "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 48, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 1000000.0, "sliding_window": null,
        "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936
    })
}

fn qwen3_next() -> Value {
    json!({
        "architectures": ["Qwen3NextForCausalLM"], "attention_bias": false,
        "decoder_sparse_step": 1, "full_attention_interval": 4, "head_dim": 256,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5120,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
        "linear_num_value_heads": 32, "linear_value_head_dim": 128,
        "max_position_embeddings": 262144, "mlp_only_layers": [], "model_type": "qwen3_next",
        "moe_intermediate_size": 512, "norm_topk_prob": true, "num_attention_heads": 16,
        "num_experts": 512, "num_experts_per_tok": 10, "num_hidden_layers": 48,
        "num_key_value_heads": 2, "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 10000000, "shared_expert_intermediate_size": 512,
        "tie_word_embeddings": false, "vocab_size": 151936
    })
}

fn read(json: &Value) -> Result<ModelConfig, Error> {
    from_hf(Path::new("config.json"), json)
}

/// Checks that the configuration with `key` (a JSON pointer) set to `value` is refused.
#[track_caller]
fn refused(mut json: Value, pointer: &str, value: Value, part: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[key] = value;
    let error = read(&json).unwrap_err().to_string();
    assert!(error.contains(part), "`{error}` does not say `{part}`");
}

#[test]
fn a_dense_model() {
    let config = read(&qwen3()).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen3);
    assert_eq!(config.layers, vec![LayerKind::FullAttention; 28]);
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (16, 8, 128));
    assert_eq!((config.rotary_dim, config.rope_theta), (128, 1e6));
    assert!(config.tied && !config.attn_output_gate && !config.norm_plus_one);
    assert_eq!((config.eps, config.context_length, config.delta), (1e-6, 40960, None));
}

// Requirement 40
#[test]
fn a_hybrid_model_inside_a_composite() {
    let config = read(&qwen35()).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen35);
    let full = config.layers.iter().filter(|&&kind| kind == LayerKind::FullAttention).count();
    assert_eq!((config.layers.len(), full), (64, 16));
    assert_eq!(config.layers[2..5].iter().position(|&k| k == LayerKind::FullAttention), Some(1));
    assert_eq!((config.rotary_dim, config.rope_theta), (64, 1e7));
    assert_eq!(config.rope_sections, Some(vec![11, 11, 10]));
    assert!(!config.tied && config.attn_output_gate && config.norm_plus_one);
    assert_eq!(config.mtp_layers, 1);
    let delta = config.delta.unwrap();
    assert_eq!((delta.key_heads, delta.value_heads, delta.conv_kernel), (16, 48, 4));
    assert_eq!((delta.channels(), delta.value_size()), (10240, 6144));
    assert_eq!(delta.value_head_order, ValueHeadOrder::Grouped);
}

// Requirement 40
#[test]
fn the_same_model_written_flat() {
    let nested = qwen35();
    let mut flat = nested["text_config"].clone();
    flat["tie_word_embeddings"] = false.into();
    flat["rope_theta"] = 10000000.into();
    flat["partial_rotary_factor"] = 0.25.into();
    flat["rope_scaling"] = json!({"type": "mrope", "mrope_section": [11, 11, 10]});
    flat.as_object_mut().unwrap().remove("rope_parameters");
    let kinds: Vec<&str> =
        (0..64).map(|i| if i % 4 == 3 { "full_attention" } else { "linear_attention" }).collect();
    flat["layer_types"] = json!(kinds);
    assert_eq!(read(&flat).unwrap(), read(&nested).unwrap());
}

#[test]
fn models_with_experts() {
    let config = read(&qwen3_moe()).unwrap();
    assert_eq!((config.architecture, config.ffn), (Architecture::Qwen3Moe, 0));
    assert!(config.delta.is_none() && !config.norm_plus_one && !config.attn_output_gate);
    let moe =
        MoeConfig { experts: 128, experts_used: 8, ffn: 768, shared_ffn: None, renormalise: true };
    assert_eq!(config.moe, Some(moe));

    let mut absent = qwen3_moe();
    for key in ["norm_topk_prob", "head_dim", "num_experts"] {
        absent.as_object_mut().unwrap().remove(key);
    }
    absent["num_local_experts"] = 128.into();
    let config = read(&absent).unwrap();
    assert_eq!((config.head_dim, config.moe), (64, Some(MoeConfig { renormalise: false, ..moe })));

    let config = read(&qwen3_next()).unwrap();
    assert_eq!((config.architecture, config.rotary_dim), (Architecture::Qwen3Next, 64));
    assert!(config.norm_plus_one && config.attn_output_gate && config.delta.is_some());
    let moe = MoeConfig { experts: 512, experts_used: 10, ffn: 512, shared_ffn: Some(512), ..moe };
    assert_eq!(config.moe, Some(moe));
    assert_eq!(config.layers.iter().filter(|k| **k == LayerKind::FullAttention).count(), 12);

    let mut composite = qwen35();
    composite["model_type"] = "qwen3_5_moe".into();
    let text = composite["text_config"].as_object_mut().unwrap();
    text["model_type"] = "qwen3_5_moe_text".into();
    text.remove("intermediate_size");
    for (key, value) in [
        ("num_experts", 256),
        ("num_experts_per_tok", 8),
        ("moe_intermediate_size", 512),
        ("shared_expert_intermediate_size", 512),
    ] {
        text.insert(key.into(), value.into());
    }
    let config = read(&composite).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen35Moe);
    assert_eq!(config.moe, Some(MoeConfig { experts: 256, experts_used: 8, ..moe }));
    refused(
        composite,
        "/text_config/norm_topk_prob",
        false.into(),
        "norm_topk_prob: expected true",
    );
}

#[test]
fn the_text_of_a_vision_model() {
    let mut text = qwen3();
    text["model_type"] = "qwen3_vl_text".into();
    text["rope_scaling"] = json!({
        "mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"
    });
    let vision = json!({
        "model_type": "qwen3_vl", "text_config": text, "tie_word_embeddings": true,
        "vision_config": { "depth": 24, "hidden_size": 1024 }
    });
    let mut dense = read(&qwen3()).unwrap();
    dense.rope_sections = Some(vec![24, 20, 20]);
    assert_eq!(read(&vision).unwrap(), dense);
}

#[test]
fn impossible_mixtures_are_refused() {
    let next = |key: &str, value: Value, part: &str| {
        refused(qwen3_next(), &format!("/{key}"), value, part);
    };
    next("num_experts", 0.into(), "num_experts: expected 1 to 2048, found 0");
    next("num_experts", 1000000.into(), "num_experts: expected 1 to 2048, found 1000000");
    next("num_experts", Value::Null, "`num_experts` is missing");
    next("num_experts_per_tok", 513.into(), "num_experts_per_tok: expected 1 to 512, found 513");
    next("num_experts_per_tok", 0.into(), "num_experts_per_tok: expected 1 to 512, found 0");
    next("moe_intermediate_size", 0.into(), "moe_intermediate_size: expected 1 to");
    next("shared_expert_intermediate_size", Value::Null, "is missing");
    next("shared_expert_intermediate_size", 0.into(), "expected 1 to");
    next("decoder_sparse_step", 2.into(), "in some layers only are not implemented, found 2");
    next("mlp_only_layers", json!([0]), "in some layers only are not implemented, found [0]");
}

/// What a model can do follows from its family, so that no name of one is left out. Requirement 41.
#[test]
fn every_name_of_a_family_gives_the_same_model() {
    let families: [(&str, Value, &[&str]); 5] = [
        ("qwen3", qwen3(), &["qwen3_vl", "qwen3_vl_text"]),
        ("qwen3_moe", qwen3_moe(), &[]),
        ("qwen3_5", qwen35(), &["qwen3_5_text"]),
        ("qwen3_5_moe", qwen3_next(), &["qwen3_5_moe_text"]),
        ("qwen3_next", qwen3_next(), &[]),
    ];
    let mut names = 0;
    for (name, mut json, aliases) in families {
        json["model_type"] = name.into();
        let config = read(&json).unwrap();
        let architecture = config.architecture;
        assert_eq!(architecture.is_hybrid(), config.delta.is_some(), "{name}");
        assert_eq!(architecture.has_experts(), config.moe.is_some(), "{name}");
        for alias in aliases {
            json["model_type"] = (*alias).into();
            assert_eq!(read(&json).unwrap(), config, "{alias}");
        }
        names += 1 + aliases.len();
    }
    let error = read(&json!({"model_type": "other"})).unwrap_err().to_string();
    let known = error.split("supported: ").nth(1).expect("the names").split(", ").count();
    assert_eq!(names, known, "{error}");
}

// Requirement 38
// Bad files 107 and 123
#[test]
fn an_unknown_architecture_names_the_known_ones() {
    refused(
        qwen3(),
        "/model_type",
        "llama".into(),
        "config.json: architecture `llama` is not supported; supported: qwen3, qwen3_5, \
         qwen3_5_text, qwen3_5_moe, qwen3_5_moe_text, qwen3_moe, qwen3_next, qwen3_vl, \
         qwen3_vl_text",
    );
    refused(qwen3(), "/model_type", Value::Null, "`model_type` is missing");
}

// Bad file 123
#[test]
fn impossible_sizes_are_refused() {
    let dense = |key: &str, value: Value, part: &str| {
        refused(qwen3(), &format!("/{key}"), value, part);
    };
    dense("num_attention_heads", 0.into(), "num_attention_heads: expected 1 to 1048576, found 0");
    dense("num_key_value_heads", 0.into(), "num_key_value_heads: expected 1 to 16, found 0");
    dense("num_key_value_heads", 32.into(), "expected 1 to 16, found 32");
    dense("num_key_value_heads", 3.into(), "a divisor of 16 (num_attention_heads), found 3");
    dense("num_hidden_layers", 4294967295_u32.into(), "num_hidden_layers: expected 1 to 1024");
    dense("num_hidden_layers", 0.into(), "num_hidden_layers: expected 1 to 1024, found 0");
    dense("hidden_size", (-1).into(), "a whole number that is not negative, found -1");
    dense("hidden_size", 1.5.into(), "found 1.5");
    dense("hidden_size", "big".into(), "found \"big\"");
    dense("vocab_size", Value::Null, "`vocab_size` is missing");
    dense("vocab_size", u64::MAX.into(), "vocab_size: expected 1 to");
    dense("rms_norm_eps", 0.into(), "rms_norm_eps: expected between 0 and 1, found 0");
    dense("rms_norm_eps", "NaN".into(), "a number");
    dense("rms_norm_eps", 1e300.into(), "rms_norm_eps: expected between 0 and 1, found inf");
    dense("rope_theta", 0.into(), "rope_theta: expected at least 1, found 0");
    dense("max_position_embeddings", 0.into(), "max_position_embeddings: expected 1 to");
    dense("head_dim", 5.into(), "an even number, found 5");
    dense("partial_rotary_factor", 1.5.into(), "expected 2 to 128, found 192");
    dense("partial_rotary_factor", (-1).into(), "expected 2 to 128, found 0");
}

#[test]
fn impossible_hybrids_are_refused() {
    let hybrid = |key: &str, value: Value, part: &str| {
        refused(qwen35(), &format!("/text_config/{key}"), value, part);
    };
    hybrid("linear_num_key_heads", 0.into(), "linear_num_key_heads: expected 1 to");
    hybrid("linear_num_value_heads", 40.into(), "a multiple of 16 (linear_num_key_heads)");
    hybrid("linear_conv_kernel_dim", 1.into(), "linear_conv_kernel_dim: expected 2 to 16");
    hybrid("linear_key_head_dim", Value::Null, "`linear_key_head_dim` is missing");
    hybrid("full_attention_interval", 0.into(), "full_attention_interval: expected at least 1");
    hybrid("layer_types", json!(["full_attention"]), "expected 64 entries");
    hybrid("layer_types", json!(vec!["sliding_attention"; 64]), "found \"sliding_attention\"");
    hybrid("mtp_num_hidden_layers", 2.into(), "mtp_num_hidden_layers: expected 0 to 1, found 2");
    refused(qwen35(), "/text_config", 1.into(), "text_config: expected an object, found 1");
}

// Requirement 106, for settings of a model
// Bad file 123
#[test]
fn what_is_not_implemented_is_refused_by_name() {
    refused(qwen3(), "/hidden_act", "gelu".into(), "hidden_act: expected `silu`");
    refused(qwen3(), "/attention_bias", true.into(), "attention_bias: expected false");
    refused(qwen3(), "/use_sliding_window", true.into(), "use_sliding_window: expected false");
    let yarn = json!({"rope_type": "yarn", "factor": 4.0});
    refused(qwen3(), "/rope_scaling", yarn, "scaled rotations are not implemented, found yarn");
    let quantised = json!({"quant_method": "fp8"});
    refused(qwen3(), "/quantization_config", quantised, "quantised safetensors weights");
}
