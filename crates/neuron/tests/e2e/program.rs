//! The real program.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Program, Script};

use crate::client;
use crate::node::{MODEL, chat_body, is_alive, says, scripted_engine, signal, wait_for};

/// Runs `neuron serve` with one scripted model.
fn serve_script(dir: &Path, script: &Script) -> Program {
    let model = dir.join(MODEL);
    testkit::write_model_dir(&model).unwrap();
    script.write(&model).unwrap();
    serve(dir, &model, json!({"engine_command": [scripted_engine()]}))
}

/// Runs `neuron serve` with one configured model and `dir` for further ones, on a port of the
/// system's choice, which its log tells.
pub fn serve(dir: &Path, model: &Path, native: Value) -> Program {
    serve_loaded(dir, json!({"model_id": MODEL, "source": model}), native)
}

/// The same with all that its load says.
pub fn serve_loaded(dir: &Path, load: Value, native: Value) -> Program {
    let config = json!({
        "listen": "127.0.0.1:0",
        "model_dirs": [dir],
        "default_models": [load],
        "harness": {"native": native},
    });
    let file = dir.join("neuron.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    Program::serve(Path::new(env!("CARGO_BIN_EXE_neuron")), &file)
}

/// The engine's process once the model is ready. Both come from one report: an engine that has just
/// been killed may still be called ready, and a moment later have no process.
pub async fn ready_pid(address: SocketAddr) -> u32 {
    let mut pid = None;
    wait_for("ready", async || {
        let report = client::get(address, &format!("/models/{MODEL}")).await.json();
        pid = report["pid"].as_u64().filter(|_| report["status"] == "ready");
        pid.is_some()
    })
    .await;
    pid.expect("it was waited for") as u32
}

#[tokio::test]
async fn no_child_survives_a_killed_daemon_even_if_its_step_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script { hang_after_steps: Some(2), ..says("la ", 5) };
    let program = serve_script(dir.path(), &script);
    let pid = ready_pid(program.address).await;
    let mut body = chat_body("go", json!({}));
    body["stream"] = true.into();
    let body = body.to_string();
    let request = client::request("POST", "/v1/chat/completions", &[], body.as_bytes());
    let mut stream = client::open(program.address, request).await;
    // Both tokens before the hang may come in one chunk.
    stream.read_until("\"content\":\"l").await;
    signal(program.child.id(), "-9");
    wait_for("the child's end", async || !is_alive(pid)).await;
}

#[tokio::test]
async fn a_terminated_daemon_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = serve_script(dir.path(), &Script::default());
    let pid = ready_pid(program.address).await;
    signal(program.child.id(), "-TERM");
    wait_for("its end", async || program.child.try_wait().unwrap().is_some()).await;
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn the_sample_model_answers_and_survives_the_death_of_its_engine() {
    let dir = tempfile::tempdir().unwrap();
    let sprout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sprout");
    let program = serve(dir.path(), &sprout, json!({}));
    let address = program.address;
    let pid = ready_pid(address).await;
    let mut body = chat_body("What is a neuron?", json!({"temperature": 0}));
    let whole = client::post(address, "/v1/chat/completions", &body).await;
    assert_eq!(whole.status, 200, "{}", whole.text());
    let answer = whole.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(answer.contains("GPU host"), "{answer}");

    body["stream"] = true.into();
    let raw = body.to_string();
    let stream = || client::request("POST", "/v1/chat/completions", &[], raw.as_bytes());
    let sse = client::open(address, stream()).await.rest().await;
    assert_eq!(client::streamed_text(&sse), answer);

    signal(pid, "-9");
    wait_for("a new engine", async || ready_pid(address).await != pid).await;
    let sse = client::open(address, stream()).await.rest().await;
    assert_eq!(client::streamed_text(&sse), answer);
}

/// The second turn of a conversation computes only what is new, and answers as if it had not.
#[tokio::test]
async fn a_second_turn_is_served_from_the_prefix_cache() {
    let dir = tempfile::tempdir().unwrap();
    let sprout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sprout");
    let program = serve(dir.path(), &sprout, json!({}));
    ready_pid(program.address).await;
    let first = chat_body("My name is Ada. Remember it.", json!({"temperature": 0}));
    let ask = async |body: &serde_json::Value| {
        client::post(program.address, "/v1/chat/completions", body).await.json()
    };
    let answer = ask(&first).await;
    assert!(answer["usage"]["prompt_tokens_details"].is_null(), "{answer}");
    let mut second = first.clone();
    let messages = second["messages"].as_array_mut().unwrap();
    messages.push(answer["choices"][0]["message"].clone());
    messages.push(json!({"role": "user", "content": "What is my name?"}));
    let warm = ask(&second).await;
    let cached = warm["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let first_prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    // All but the generation prompt's last words, which the template spells differently later.
    assert!(cached + 12 >= first_prompt, "{cached} of {first_prompt} tokens");
    let text = |answer: &serde_json::Value| answer["choices"][0]["message"]["content"].clone();
    assert!(text(&warm).as_str().unwrap().contains("Ada"), "{warm}");
    let metrics = client::get(program.address, "/metrics").await.text();
    let line = metrics.lines().find(|line| line.starts_with("neuron_cached_prompt_tokens_total"));
    assert!(line.unwrap().ends_with(&format!(" {cached}")), "{line:?}");
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_neuron")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_cannot_be_served_is_said_and_ends_with_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("neuron.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "lisen = \"127.0.0.1:0\"\n").unwrap();
    for command in ["serve", "check-config"] {
        let (status, _, errors) = run(&[command, "--config", path]);
        assert_eq!(status, Some(1));
        let expected = format!("neuron: {path}:1:1: unknown key `lisen`, did you mean `listen`?\n");
        assert_eq!(errors, expected);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    std::fs::write(&file, format!("listen = \"{address}\"\n")).unwrap();
    let (status, _, errors) = run(&["serve", "--config", path]);
    assert_eq!(status, Some(1));
    assert!(errors.contains(&format!("neuron: cannot listen on {address}: ")), "{errors}");
    let (status, out, _) = run(&["check-config", "--print-config", "--config", path]);
    assert_eq!(status, Some(0));
    assert!(out.contains(&format!("listen = \"{address}\"")), "{out}");
}

#[test]
fn a_plan_says_what_a_model_takes_and_fails_where_it_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("neuron.toml");
    let sprout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sprout");
    let of = |settings: &str, more: &[&str]| {
        std::fs::write(&file, settings).unwrap();
        let source = sprout.to_str().unwrap();
        run(&[&["plan", source, "--config", file.to_str().unwrap()][..], more].concat())
    };
    let (status, out, errors) = of("", &["--context", "512", "--max-running", "2"]);
    assert_eq!(status, Some(0), "{errors}");
    assert!(out.contains("2 requests at once, 512 tokens of context"), "{out}");
    let (_, json, _) = of("", &["--json"]);
    let plan: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&plan["fits"], &plan["is_on_host"]), (&json!(true), &json!(true)));
    let (status, out, errors) = of("harness.native.memory_mb = 1", &[]);
    assert_eq!(status, Some(1));
    assert!(out.contains("needs") && errors.contains("does not fit"), "{out}{errors}");
    let (status, _, errors) = of("", &["--quant", "Q9"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("Q9") && errors.contains("Q8_0"), "{errors}");
}

/// Requirement 115.
#[test]
fn the_packaged_configuration_starts() {
    let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/neuron/neuron.toml");
    let text = std::fs::read_to_string(&packaged).unwrap();
    let (status, out, errors) = run(&["check-config", "--config", packaged.to_str().unwrap()]);
    assert_eq!((status, out.as_str()), (Some(0), "the configuration is fine\n"), "{errors}");
    // What is only suggested is right as well.
    let suggested = text.replace("# [[", "[[").lines().map(uncommented).collect::<String>();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("neuron.toml");
    let key = dir.path().join("api-key");
    std::fs::write(&key, "k").unwrap();
    std::fs::write(&file, suggested.replace("/etc/neuron/api-key", key.to_str().unwrap())).unwrap();
    let (status, _, errors) = run(&["check-config", "--config", file.to_str().unwrap()]);
    assert_eq!(status, Some(0), "{errors}{suggested}");
    assert!(suggested.contains("\nmodel_id"), "{suggested}");
}

/// A line of an example without the sign that makes its setting a suggestion.
fn uncommented(line: &str) -> String {
    let setting = line.strip_prefix("# ").filter(|rest| rest.contains(" = "));
    format!("{}\n", setting.unwrap_or(line))
}

#[test]
fn a_key_that_cannot_be_read_is_found_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("neuron.toml");
    std::fs::write(&file, "api_key_file = \"/nowhere/key\"\n").unwrap();
    for command in ["serve", "check-config"] {
        let (status, _, errors) = run(&[command, "--config", file.to_str().unwrap()]);
        assert_eq!(status, Some(1));
        assert!(errors.starts_with("neuron: api_key_file /nowhere/key: "), "{errors}");
    }
}

#[test]
fn doctor_says_what_models_would_run_on() {
    let (status, out, _) = run(&["doctor"]);
    assert_eq!(status, Some(0));
    assert!(out.contains("models run on the CPU"), "{out}");
    let (_, json, _) = run(&["doctor", "--json"]);
    let host: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(host["devices"], json!([]));
}
