//! Paths of every kind.

use std::fs;

use kernels::WeightType;

use super::*;
use crate::gguf::write::{Header, NewValue};

#[track_caller]
fn refused(path: &Path, part: &str) {
    match Source::open(path) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains(part), "`{error}` does not say `{part}`");
        }
    }
}

// Bad files 107, 112 and 122
#[test]
fn directories_without_a_model_say_what_they_lack() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
    refused(&path.join("none"), "none: not found");
    refused(path, "a safetensors or GGUF file is missing");
    write("pytorch_model.bin", "");
    refused(path, "pickle weights only (`pytorch_model.bin`), which are refused");
    write("a.gguf", "");
    refused(path, "a.gguf: is not a GGUF file");
    write("b.gguf", "");
    refused(path, "has 2 GGUF models; name the one to open");
    write("model-00001-of-00002.safetensors", "");
    refused(path, "config.json: not found");
    write("config.json", "version https://git-lfs.github.com/spec/v1");
    refused(path, "git lfs pull");
    write("config.json", "{");
    refused(path, "config.json: JSON: ");
    write("config.json", "[]");
    refused(path, "config.json: JSON: is not an object");
    write("config.json", r#"{"model_type": "llama"}"#);
    refused(path, "architecture `llama` is not supported");
    refused(&path.join("model-00001-of-00002.safetensors"), "give the directory");
}

// Bad file 114
#[test]
fn a_pipe_is_refused_without_hanging() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe.gguf");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    refused(&pipe, "is a pipe, socket or device");
    let circle = directory.path().join("circle.gguf");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    refused(&circle, "circle.gguf: ");
}

// Bad file 106
#[test]
fn rows_that_are_shaped_anew_are_whole_blocks() {
    // A feed-forward layer of one element: its last matrix may be written as a row.
    let open = |down: WeightType| {
        let mut header = Header::new();
        header.put("general.architecture", "qwen3");
        for (key, value) in [
            ("block_count", 1),
            ("embedding_length", 32),
            ("attention.head_count", 1),
            ("attention.key_length", 2),
            ("feed_forward_length", 1),
            ("context_length", 16),
        ] {
            header.put(&format!("qwen3.{key}"), NewValue::U32(value));
        }
        header.put("qwen3.attention.layer_norm_rms_epsilon", NewValue::F32(1e-6));
        let tensors: [(&str, &[usize]); 12] = [
            ("token_embd.weight", &[4, 32]),
            ("output_norm.weight", &[32]),
            ("blk.0.attn_norm.weight", &[32]),
            ("blk.0.attn_q.weight", &[2, 32]),
            ("blk.0.attn_k.weight", &[2, 32]),
            ("blk.0.attn_v.weight", &[2, 32]),
            ("blk.0.attn_output.weight", &[32, 2]),
            ("blk.0.attn_q_norm.weight", &[2]),
            ("blk.0.attn_k_norm.weight", &[2]),
            ("blk.0.ffn_norm.weight", &[32]),
            ("blk.0.ffn_gate.weight", &[1, 32]),
            ("blk.0.ffn_up.weight", &[1, 32]),
        ];
        for (name, shape) in tensors {
            header.declare(name, shape, WeightType::F32);
        }
        header.declare("blk.0.ffn_down.weight", &[32], down);
        let mut bytes = header.bytes();
        bytes.extend([0; 4096]);
        Source::of_gguf(Gguf::read(Path::new("x.gguf"), bytes.into()).unwrap())
    };
    open(WeightType::F32).unwrap();
    let error = open(WeightType::Q8_0).err().expect("a block cannot be cut").to_string();
    assert!(error.contains("`blk.0.ffn_down.weight`: the shape [32, 1] has rows of 1"), "{error}");
}
