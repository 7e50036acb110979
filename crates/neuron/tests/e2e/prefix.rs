//! The prefix cache as callers and operators see it, with the sample model.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Program;

use crate::client;
use crate::node::MODEL;
use crate::program::{ready_pid, serve_loaded};

pub async fn sprout(load: Value, native: Value) -> (Program, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sprout");
    let mut request = json!({"model_id": MODEL, "source": source});
    request.as_object_mut().unwrap().extend(load.as_object().unwrap().clone());
    let program = serve_loaded(dir.path(), request, native);
    ready_pid(program.address).await;
    (program, dir)
}

/// Some sixty tokens of the sample model.
const STORY: &str = "A host has two cards and one of them is busy. A second model is asked for. \
                     Where does it go, and what has to leave before it can be loaded there?";

/// A short answer to these messages.
async fn ask(program: &Program, messages: &Value, more: Value, headers: &[(&str, &str)]) -> Value {
    let mut body = json!({"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 8});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = body.to_string();
    let request = client::request("POST", "/v1/chat/completions", headers, body.as_bytes());
    let answer = client::send(program.address, request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0)
}

fn said(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[tokio::test]
async fn a_miss_names_the_message_that_is_new() {
    let (program, _dir) = sprout(json!({}), json!({})).await;
    let ask = async |messages: Value| ask(&program, &messages, json!({}), &[]).await;
    let system = said("system", "Be brief.");
    let first = ask(json!([system, said("user", STORY)])).await;
    assert_eq!(first["timings"]["cache_miss"], Value::Null, "nothing was cached: {first}");
    assert_eq!(first["timings"]["cache_n"], 0);
    let again = ask(json!([system, said("user", STORY)])).await;
    assert_eq!(again["timings"]["cache_miss"], Value::Null, "nothing differs: {again}");
    assert_eq!(again["timings"]["cache_n"].as_u64(), Some(cached(&again)));
    assert!(cached(&again) > 50, "{again}");
    let edited = ask(json!([system, said("user", &format!("{STORY} Say why."))])).await;
    assert_eq!(edited["timings"]["cache_miss"], json!({"message": 1, "role": "user"}));
    let other = said("system", "Be verbose.");
    let other = ask(json!([other, said("user", STORY)])).await;
    assert_eq!(other["timings"]["cache_miss"], json!({"message": 0, "role": "system"}));
    let answer = first["choices"][0]["message"]["content"].as_str().unwrap();
    let changed = said("assistant", &format!("No: {answer}"));
    let next = ask(json!([system, said("user", STORY), changed, said("user", "Why?")])).await;
    assert_eq!(next["timings"]["cache_miss"], json!({"message": 2, "role": "assistant"}));
    assert!(cached(&next) > 50, "what came before is reused all the same: {next}");
}

/// Requirement 29 is cortex's side of it.
#[tokio::test]
async fn callers_of_other_identities_share_nothing() {
    let (program, _dir) = sprout(json!({}), json!({"cache_isolation": "caller"})).await;
    let messages = json!([said("user", STORY)]);
    let ask = async |identity: &str, more: Value| {
        let all = [("x-cortex-identity", identity)];
        let headers = if identity.is_empty() { &[][..] } else { &all[..] };
        cached(&ask(&program, &messages, more, headers).await) > 0
    };
    for (identity, more) in [
        ("", json!({})),
        ("ann", json!({})),
        ("bob", json!({})),
        ("ann", json!({"cache_salt": "s"})),
        ("ann", json!({"user": "u"})),
        ("ann", json!({"user": "u", "prompt_cache_key": "k"})),
    ] {
        assert!(!ask(identity, more.clone()).await, "{identity:?} {more} was asked for before");
        assert!(ask(identity, more.clone()).await, "{identity:?} {more} was not kept");
    }
}

/// Two prompts that have no room beside one another on the device.
#[tokio::test]
async fn what_leaves_the_device_comes_back_from_the_host() {
    let load = json!({"context": 128, "max_running": 1});
    let (program, _dir) = sprout(load, json!({"host_cache_mb": 16})).await;
    let one = json!([said("user", STORY)]);
    let other = json!([said("user", &format!("Listen. {STORY}"))]);
    let ask = async |messages: &Value| ask(&program, messages, json!({}), &[]).await;
    let cold = ask(&one).await;
    for _ in 0..2 {
        ask(&other).await;
        let warm = ask(&one).await;
        assert!(cached(&warm) > 50, "{warm}");
        assert_eq!(warm["choices"], cold["choices"]);
    }
    let report = client::get(program.address, &format!("/models/{MODEL}")).await.json();
    let path = &report["fast_paths"][0];
    assert_eq!((&path["name"], &path["on"]), (&json!("prefix_cache"), &json!(true)), "{report}");
    assert!(path["detail"].as_str().unwrap().contains("16 MiB on the host"), "{report}");
    let metrics = client::get(program.address, "/metrics").await.text();
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let of_tier =
        |name: &str, tier: &str| value(&format!("{name}{{model=\"{MODEL}\",tier=\"{tier}\"}}"));
    assert!(of_tier("neuron_prefix_cache_hit_tokens_total", "host") > 50.0);
    assert!(of_tier("neuron_prefix_cache_evictions_total", "device") > 0.0);
    assert!(of_tier("neuron_prefix_cache_bytes", "host") > 0.0);
    assert!(of_tier("neuron_prefix_cache_bytes", "host") <= f64::from(16 << 20));
    let hits = of_tier("neuron_prefix_cache_hit_tokens_total", "host")
        + of_tier("neuron_prefix_cache_hit_tokens_total", "device");
    assert_eq!(value("neuron_cached_prompt_tokens_total"), hits);
    assert!(value("neuron_prefix_cache_looked_up_tokens_total") > hits);
    assert_eq!(value("neuron_prefix_cache_on"), 1.0);
}

#[tokio::test]
async fn a_cache_that_is_off_says_why() {
    let (program, _dir) = sprout(json!({}), json!({"prefix_cache": false})).await;
    let report = client::get(program.address, &format!("/models/{MODEL}")).await.json();
    let want = json!({"name": "prefix_cache", "on": false, "detail": "it was not asked for"});
    assert_eq!(report["fast_paths"], json!([want]));
    let metrics = client::get(program.address, "/metrics").await.text();
    assert!(metrics.contains(&format!("neuron_prefix_cache_on{{model=\"{MODEL}\"}} 0")));
}
