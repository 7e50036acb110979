//! Ways to bring weights in, and files that mean harm, with the real program.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::Program;

use crate::client::{self, Answer};
use crate::node::{MODEL, chat_body};
use crate::program::{ready_pid, serve};

fn sprout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sprout")
}

/// A copy of the sample model in a directory of its own, without its GGUF file.
fn copy_sprout(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for entry in fs::read_dir(sprout()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_none_or(|end| end != "gguf") {
            fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
        }
    }
}

async fn load(program: &Program, body: &Value) -> Answer {
    client::post(program.address, "/models/load", body).await
}

/// What a model says to a question.
async fn ask(program: &Program, model: &str) -> String {
    let body = chat_body("What is a neuron?", json!({"temperature": 0, "model": model}));
    let answer = client::post(program.address, "/v1/chat/completions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn weights_are_quantised_as_a_load_asks_and_as_its_dry_run_said() {
    let dir = tempfile::tempdir().unwrap();
    copy_sprout(&dir.path().join("twin"));
    let program = serve(dir.path(), &sprout(), json!({}));
    ready_pid(program.address).await;
    let body = json!({"model_id": "twin", "quant": "q8_0"});
    let dry = client::post(program.address, "/models/load?dry_run=1", &body).await;
    assert_eq!(dry.status, 200, "{}", dry.text());
    let (dry, loaded) = (dry.json()["plan"].clone(), load(&program, &body).await.json());
    assert_eq!(loaded["status"], "loaded", "{loaded}");
    assert_eq!(dry["ranks"], loaded["plan"]["ranks"]);
    assert_eq!((&dry["quant"], &dry["fits"]), (&json!("Q8_0"), &json!(true)));
    assert!(dry["free_bytes"].as_u64() > dry["needed_bytes"].as_u64());
    // What was converted first is quantised by the same functions.
    let converted = dir.path().join("converted.gguf");
    model::convert(&sprout(), &converted, model::Recipe::from_name("Q8_0").unwrap()).unwrap();
    let file = load(&program, &json!({"model_id": "converted.gguf"})).await.json();
    assert_eq!(file["plan"]["ranks"], loaded["plan"]["ranks"], "{file}");
    let answer = ask(&program, "twin").await;
    assert_eq!(answer, ask(&program, "converted.gguf").await);
    assert!(answer.contains("GPU host"), "{answer}");
}

#[tokio::test]
async fn formats_that_cannot_be_had_are_told_with_those_that_can() {
    let dir = tempfile::tempdir().unwrap();
    copy_sprout(&dir.path().join("twin"));
    fs::copy(sprout().join("sprout-Q8_0.gguf"), dir.path().join("eight.gguf")).unwrap();
    let program = serve(dir.path(), &sprout(), json!({}));
    ready_pid(program.address).await;
    for (id, quant, nearest) in [("twin", "Q4_K_L", "Q4_K_M"), ("eight.gguf", "Q4_K_M", "Q8_0")] {
        let refused = load(&program, &json!({"model_id": id, "quant": quant})).await;
        assert_eq!(refused.status, 422);
        let error = &refused.json()["error"];
        assert_eq!(
            (&error["code"], &error["nearest"]),
            (&json!("quant_not_found"), &json!(nearest))
        );
        let available = error["available"].as_array().unwrap();
        assert!(available.contains(&json!(nearest)), "{error}");
    }
    let huge = json!({"model_id": "twin", "max_running": u32::MAX});
    let refused = load(&program, &huge).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "does_not_fit");
    assert!(error["needed_mb"].as_u64() > error["free_mb"].as_u64(), "{error}");
    assert!(ask(&program, MODEL).await.contains("GPU host"));
}

/// What was loaded keeps serving, in the same process, and a refusal names file, item and reason.
#[tokio::test]
async fn bad_files_are_refused_beside_a_model_that_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    let program = serve(dir.path(), &sprout(), json!({}));
    let pid = ready_pid(program.address).await;
    let good = fs::read(sprout().join("sprout-Q8_0.gguf")).unwrap();
    let answer = ask(&program, MODEL).await;
    // Bad files 86, 87, 89 (a count of keys), 112, 104 and 109.
    let mut keys = good.clone();
    keys[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let end = b"tokenizer.ggml.eos_token_id\x04\0\0\0";
    let at = good.windows(end.len()).position(|window| window == end).unwrap() + end.len();
    let mut ends = good.clone();
    ends[at..at + 4].copy_from_slice(&1536_u32.to_le_bytes());
    let files: [(&str, &[u8], &str); 6] = [
        ("empty.gguf", b"", "is not a GGUF file"),
        ("reversed.gguf", b"FUGG\x03\0\0\0", "byte-reversed"),
        ("keys.gguf", &keys, "18446744073709551615 metadata keys"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("short.gguf", &good[..good.len() - 64], "cut short"),
        ("ends.gguf", &ends, "expected the id of one of 1536 tokens, found 1536"),
    ];
    for (name, bytes, part) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
        let refused = load(&program, &json!({"model_id": name})).await;
        assert_eq!(refused.status, 422, "{name}: {}", refused.text());
        let error = &refused.json()["error"];
        assert_eq!((&error["code"], &error["file"]), (&json!("bad_model_file"), &json!(name)));
        let reason = error["reason"].as_str().unwrap();
        assert!(reason.contains(part), "{name}: `{reason}` does not say `{part}`");
        assert!(!error["item"].as_str().unwrap().is_empty());
        assert!(!error.to_string().contains(&*dir.path().to_string_lossy()), "{error}");
    }
    // Bad file 123: more tokens than rows, which is seen once both halves are read.
    let more = dir.path().join("more");
    copy_sprout(&more);
    let path = more.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    let mut token = added[0].clone();
    (token["id"], token["content"]) = (json!(1536), json!("<|more|>"));
    added.push(token);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let refused = load(&program, &json!({"model_id": "more"})).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let reason = &refused.json()["error"]["reason"];
    assert_eq!(reason, "has ids up to 1536, and the model has 1536 rows");
    assert_eq!(ready_pid(program.address).await, pid);
    assert_eq!(ask(&program, MODEL).await, answer);
}

/// Numbers that are none make no garbage: a load that encodes them refuses them by name, and one
/// that takes them as they are ends requests with an error. Bad file 111.
#[tokio::test]
async fn weights_that_are_no_numbers_end_in_an_error_and_never_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let twin = dir.path().join("twin");
    copy_sprout(&twin);
    let path = twin.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let norm = header["model.norm.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start + norm..][..2].copy_from_slice(&[0xC0, 0x7F]);
    fs::write(&path, bytes).unwrap();
    let program = serve(dir.path(), &sprout(), json!({}));
    ready_pid(program.address).await;
    let refused = load(&program, &json!({"model_id": "twin", "quant": "Q8_0"})).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let error = &refused.json()["error"];
    assert_eq!(error["item"], "tensor `model.norm.weight`", "{error}");
    assert_eq!(error["reason"], "element 0 is NaN");
    let loaded = load(&program, &json!({"model_id": "twin"})).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    // Requirement 54: it says so at once.
    let report = client::get(program.address, "/models/twin").await.json();
    let path = report["fast_paths"].as_array().unwrap().last().unwrap();
    assert_eq!((&path["name"], &path["on"]), (&json!("logits"), &json!(false)), "{report}");
    let body = chat_body("What is a neuron?", json!({"temperature": 0, "model": "twin"}));
    let failed = client::post(program.address, "/v1/chat/completions", &body).await;
    assert_eq!(failed.status, 500, "{}", failed.text());
    assert!(ask(&program, MODEL).await.contains("GPU host"));
}
