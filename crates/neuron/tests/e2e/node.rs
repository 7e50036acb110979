//! A daemon in this process whose engine children are real processes that follow scripts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::{Health, LoadRequest, ModelHealth, ModelReport};
use neuron::child::process::EngineProgram;
use neuron::config::Config;
use neuron::models::lifecycle::RestartPolicy;
use neuron::serve::Daemon;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Script;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{self, Answer, Opened, PATIENCE};

/// The id of the model that most tests use.
pub const MODEL: &str = "echo";

pub struct Node {
    pub address: SocketAddr,
    pub models: TempDir,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

/// The program that stands in for `neuron engine`; cargo builds it along with the tests.
pub fn scripted_engine() -> PathBuf {
    let product = Path::new(env!("CARGO_BIN_EXE_neuron"));
    let path = product.with_file_name("examples").join("scripted_engine");
    assert!(path.exists(), "run `cargo build -p neuron --example scripted_engine` first");
    path
}

/// Restarts that do not make tests wait.
pub fn quick_restarts() -> RestartPolicy {
    RestartPolicy {
        first_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_millis(200),
        max_quick_deaths: 3,
        ..RestartPolicy::default()
    }
}

impl Node {
    /// A node that allows loads from its models directory and has none loaded.
    pub async fn empty() -> Self {
        Self::start(Config::default()).await
    }

    /// A node with one model that follows the script and is ready.
    pub async fn with(script: Script) -> Self {
        let node = Self::empty().await;
        node.add(MODEL, &script);
        let answer = node.load(MODEL).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        node
    }

    pub async fn start(config: Config) -> Self {
        Self::start_with(config, scripted_engine(), &[]).await
    }

    /// A node with one model of random weights, run by the product's own engine.
    pub async fn with_random_model() -> Self {
        Self::with_random_model_after(|_| {}).await
    }

    /// The same with what is done to the model's directory before it is loaded.
    pub async fn with_random_model_after(change: impl FnOnce(&Path)) -> Self {
        let product = PathBuf::from(env!("CARGO_BIN_EXE_neuron"));
        let node = Self::start_with(Config::default(), product, &["engine"]).await;
        testkit::write_random_model(&node.models.path().join(MODEL), 5).unwrap();
        change(&node.models.path().join(MODEL));
        let answer = node.load(MODEL).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        node
    }

    async fn start_with(mut config: Config, path: PathBuf, args: &[&str]) -> Self {
        let models = tempfile::tempdir().unwrap();
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.model_dirs.push(models.path().to_owned());
        let program = EngineProgram {
            path,
            args: args.iter().map(Into::into).collect(),
            step_timeout: Duration::from_secs(config.harness.native.step_timeout_secs),
        };
        let daemon = Daemon::bind(&config, program, quick_restarts()).await.unwrap();
        let address = daemon.listen;
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(daemon.run(stopped));
        Self { address, models, stop, running }
    }

    /// Puts a model where loads find it by its id.
    pub fn add(&self, id: &str, script: &Script) {
        let dir = self.models.path().join(id);
        testkit::write_model_dir(&dir).unwrap();
        script.write(&dir).unwrap();
    }

    /// Process ids of all loads of a model so far.
    pub fn loads(&self, id: &str) -> Vec<u32> {
        let text = std::fs::read_to_string(self.models.path().join(id).join("loads"));
        text.unwrap_or_default().lines().map(|line| line.parse().unwrap()).collect()
    }

    pub async fn load(&self, id: &str) -> Answer {
        let request = LoadRequest { model_id: id.into(), ..LoadRequest::default() };
        self.post("/models/load", &serde_json::to_value(request).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        client::get(self.address, path).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        client::post(self.address, path, body).await
    }

    /// A chat whose answer is complete when this returns.
    pub async fn chat(&self, text: &str, more: Value) -> Answer {
        self.post("/v1/chat/completions", &chat_body(text, more)).await
    }

    /// A streamed chat.
    pub async fn stream(&self, text: &str, more: Value) -> Opened {
        let mut body = chat_body(text, more);
        body["stream"] = true.into();
        let body = body.to_string();
        let request = client::request("POST", "/v1/chat/completions", &[], body.as_bytes());
        client::open(self.address, request).await
    }

    pub async fn health(&self) -> Health {
        serde_json::from_value(self.get("/health").await.json()).unwrap()
    }

    pub async fn model_health(&self) -> ModelHealth {
        self.health().await.models.into_iter().find(|model| model.id == MODEL).unwrap()
    }

    pub async fn report(&self, id: &str) -> ModelReport {
        let answer = self.get(&format!("/models/{id}")).await;
        serde_json::from_value(answer.json()).unwrap()
    }

    /// Waits until every block and slot is free and nobody runs or waits.
    pub async fn settled(&self) {
        wait_for("everything given back", async || {
            let model = self.model_health().await;
            model.running == 0
                && model.waiting == 0
                && model.kv_blocks_free == model.kv_blocks_total
                && model.state_slots_free == model.state_slots_total
        })
        .await;
    }

    /// Ends the daemon in order.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.running).await.expect("no end").unwrap();
    }
}

pub fn chat_body(text: &str, more: Value) -> Value {
    let messages = json!([{"role": "user", "content": text}]);
    let mut body = json!({"model": MODEL, "messages": messages});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// A script that says this over and over, one byte a step.
pub fn says(text: &str, step_ms: u64) -> Script {
    Script { answer: Some(testkit::byte_tokens(text)), step_ms, ..Script::default() }
}

/// Looks until it is so; panics when it never is.
pub async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looked = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub fn is_alive(pid: u32) -> bool {
    // A zombie is no longer alive, though its parent has not looked yet.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

pub fn signal(pid: u32, signal: &str) {
    let status = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(status.unwrap().success());
}
