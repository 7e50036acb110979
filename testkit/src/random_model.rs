//! A model of random weights, which answers in any order of tokens that it is not kept from.

use std::path::Path;
use std::{fs, io};

use serde_json::{Map, Value, json};

use crate::model_dir::{END_OF_TURN, vocabulary, write_model_dir};

const HIDDEN: usize = 32;
const HEAD_DIM: usize = 16;
const HEADS: usize = 2;
const INTERMEDIATE: usize = 48;
const LAYERS: usize = 2;

/// Writes a small dense model beside the files of [`write_model_dir`]. A byte is a token; the
/// logits spread over a few units, so that drawn tokens differ widely.
pub fn write_random_model(dir: &Path, seed: u64) -> io::Result<()> {
    write_model_dir(dir)?;
    let config = json!({
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "vocab_size": vocabulary().len(),
        "eos_token_id": END_OF_TURN,
    });
    fs::write(dir.join("config.json"), config.to_string())?;
    fs::write(dir.join("model.safetensors"), weights(seed))
}

fn weights(seed: u64) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    let mut state = seed;
    let mut add = |name: String, shape: &[usize], scale: Option<f32>| {
        let begin = data.len();
        for _ in 0..shape.iter().product() {
            let value = scale.map_or(1.0, |scale| scale * uniform(&mut state));
            data.extend_from_slice(&value.to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name, entry);
    };
    add("model.embed_tokens.weight".to_owned(), &[vocabulary().len(), HIDDEN], Some(0.6));
    add("model.norm.weight".to_owned(), &[HIDDEN], None);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            add(name(norm), &[HIDDEN], None);
        }
        for norm in ["self_attn.q_norm", "self_attn.k_norm"] {
            add(name(norm), &[HEAD_DIM], None);
        }
        for (part, rows, cols) in [
            ("self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.k_proj", HEAD_DIM, HIDDEN),
            ("self_attn.v_proj", HEAD_DIM, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM),
            ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
            ("mlp.up_proj", INTERMEDIATE, HIDDEN),
            ("mlp.down_proj", HIDDEN, INTERMEDIATE),
        ] {
            add(name(part), &[rows, cols], Some(0.4));
        }
    }
    let header = Value::Object(header).to_string();
    let length = header.len() as u64;
    [&length.to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// From -1 to 1, by the generator SplitMix64 (Steele, Lea and Flood, 2014).
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 40) as f32 / (1 << 23) as f32 - 1.0
}
