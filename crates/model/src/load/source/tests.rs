//! Paths of every kind.

use std::fs;

use super::*;

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
