//! The real program: one command, and the model is loaded.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Program;

use crate::mock::MockHub;
use crate::{Scene, sprout};

fn neuron(scene: &Scene, hub: &MockHub, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_neuron"))
        .args(arguments)
        .env_clear()
        .env("HOME", scene.dir.path())
        .env("HF_ENDPOINT", &hub.url)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn config(scene: &Scene) -> String {
    let file = scene.dir.path().join("neuron.toml");
    let models = scene.models();
    let config = json!({"listen": "127.0.0.1:0", "model_dirs": [models]});
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    file.to_str().unwrap().to_owned()
}

fn post(program: &Program, path: &str, body: &Value) -> Value {
    let url = format!("http://{}{path}", program.address);
    let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build();
    let agent: ureq::Agent = agent.into();
    let mut answer = agent.post(&url).content_type("application/json").send(body.to_string());
    let body = answer.as_mut().unwrap().body_mut().read_to_string().unwrap();
    serde_json::from_str(&body).unwrap()
}

/// Loads what was pulled by its id alone, over HTTP, and asks it.
fn is_served(config: &str, id: &str, quant: Option<&str>) {
    let program = Program::serve(Path::new(env!("CARGO_BIN_EXE_neuron")), Path::new(config));
    let loaded = post(&program, "/models/load", &json!({"model_id": id, "quant": quant}));
    assert!(loaded.get("error").is_none(), "{loaded}");
    let body = json!({"model": id, "max_tokens": 8, "temperature": 0,
        "messages": [{"role": "user", "content": "What is a neuron?"}]});
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = post(&program, "/v1/chat/completions", &body);
        if let Some(content) = answer["choices"][0]["message"]["content"].as_str() {
            assert!(!content.is_empty(), "{answer}");
            return;
        }
        assert!(Instant::now() < until, "{answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Requirement 108: weights, template and generation defaults come together, and the directory
/// needs no network afterwards.
#[test]
fn a_directory_is_pulled_and_served() {
    let (hub, scene) = (MockHub::of_dir(&sprout()), Scene::new());
    hub.state().files.remove("sprout-Q8_0.gguf");
    let config = config(&scene);
    let done = neuron(&scene, &hub, &["pull", "org/model", "-c", &config, "--quant", "Q8_0"]);
    let (out, told) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{told}");
    let dir = scene.path("org/model");
    let (path, next) = out.split_once('\n').unwrap();
    assert_eq!(Path::new(path), dir);
    assert!(next.contains(&format!("neuron plan {} --quant Q8_0", dir.display())), "{next}");
    assert!(told.contains("model.safetensors: 5.1 MB, hash as announced"), "{told}");
    assert!(!told.contains('\r') && !told.contains('\x1b'), "{told:?}");
    for name in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        let (pulled, real) = (std::fs::read(dir.join(name)), std::fs::read(sprout().join(name)));
        assert!(pulled.unwrap() == real.unwrap(), "{name}");
    }
    assert!(dir.join("chat_template.jinja").exists() && !dir.join("heldout.jsonl").exists());
    let plan = neuron(&scene, &hub, &["plan", path, "-c", &config, "--context", "256"]);
    assert!(plan.status.success(), "{}", text(&plan.stderr));
    hub.take_seen();
    let offline = neuron(&scene, &hub, &["pull", "org/model", "-c", &config, "--offline"]);
    assert!(offline.status.success(), "{}", text(&offline.stderr));
    assert!(text(&offline.stderr).contains("all of it was there; commit 1111"));
    assert_eq!(text(&offline.stdout).lines().next(), Some(path));
    is_served(&config, "org/model", Some("Q8_0"));
    assert!(hub.take_seen().is_empty());
}

#[test]
fn a_gguf_file_is_pulled_and_served() {
    let (hub, scene) = (MockHub::of_dir(&sprout()), Scene::new());
    let config = config(&scene);
    let models = scene.models();
    let into = models.to_str().unwrap();
    let done = neuron(&scene, &hub, &["pull", "org/model", "--into", into, "--file", "*.gguf"]);
    let (out, told) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{told}");
    assert!(out.contains("neuron plan") && out.contains("sprout-Q8_0.gguf"), "{out}");
    is_served(&config, "org/model", None);
}

#[test]
fn a_pull_that_is_killed_goes_on() {
    let (hub, scene) = (MockHub::of_dir(&sprout()), Scene::new());
    let config = config(&scene);
    // The stream ends after 2 MB, and the hub then is busy for longer than the test lives.
    hub.state().faults.extend([crate::mock::Fault::Cut(2_000_000)]);
    hub.state().faults.extend(vec![crate::mock::Fault::Status(503, Some(60)); 2]);
    let arguments = ["pull", "org/model", "-c", &config, "--file", "sprout-Q8_0.gguf"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_neuron"))
        .args(arguments)
        .env("HF_ENDPOINT", &hub.url)
        .env("HOME", scene.dir.path())
        .env_remove("HF_TOKEN")
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while hub.state().seen.iter().filter(|seen| !seen.is_hub).count() < 2 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    hub.state().faults.clear();
    hub.take_seen();
    let done = neuron(&scene, &hub, &arguments);
    let told = text(&done.stderr);
    assert!(done.status.success(), "{told}");
    assert!(told.contains("goes on at 2.0 MB of 2.8 MB"), "{told}");
    assert_eq!(hub.take_seen().last().unwrap().range.as_deref(), Some("bytes=2000000-"));
    is_served(&config, "org/model", None);
}
