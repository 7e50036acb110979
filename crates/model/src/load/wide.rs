//! A checkpoint whose rows are wide enough for blocks of 256, written where a test wants it.

use std::fs;
use std::path::{Path, PathBuf};

use half::bf16;
use serde_json::{Map, Value, json};

use crate::config::from_hf;
use crate::{Role, TensorName};

/// A hybrid with one layer of each kind and BF16 weights that look random. Returns its directory.
pub(crate) fn write(directory: &Path) -> PathBuf {
    let directory = directory.join("wide");
    fs::create_dir_all(&directory).unwrap();
    let config = json!({
        "model_type": "qwen3_5_text", "vocab_size": 300, "hidden_size": 256,
        "intermediate_size": 512, "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"], "full_attention_interval": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 64, "linear_value_head_dim": 64,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 512, "rope_theta": 10000.0, "partial_rotary_factor": 0.25,
        "tie_word_embeddings": true
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let config = from_hf(Path::new("config.json"), &config).unwrap();
    let (mut header, mut data) = (Map::new(), Vec::<u8>::new());
    let mut seed = 1_u32;
    for name in TensorName::all(&config) {
        let shape = name.shape(&config);
        let begin = data.len();
        let scale = if matches!(name, TensorName::Layer(_, Role::DeltaA)) { 1.0 } else { 0.05 };
        for _ in 0..shape.iter().product::<usize>() {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = (seed >> 8) as f32 / (1 << 24) as f32 - 0.5;
            data.extend(bf16::from_f32(scale * x).to_le_bytes());
        }
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.hf("model."), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(directory.join("model.safetensors"), file).unwrap();
    directory
}
