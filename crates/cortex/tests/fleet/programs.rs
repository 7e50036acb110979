//! Programs on loopback or in a network of their own, and how to ask them.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, Open, until};

/// MiB that hold the sample model once, with four requests at a time.
const ROOM_FOR_ONE: u64 = 40;

/// A running program; it is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    fn start(mut command: Command, log: &Path) -> Program {
        let log = std::fs::File::create(log).expect("a file for the log");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts; `cargo build -p neuron` builds it");
        Program { child }
    }

    pub(crate) fn signal(&self, signal: &str) {
        signal_to(self.child.id(), signal);
    }
}

pub(crate) fn signal_to(pid: u32, signal: &str) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

impl Drop for Program {
    fn drop(&mut self) {
        // A stopped process does not die of a polite signal, and its own children follow it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Neurons and their gateway.
pub(crate) struct Fleet {
    pub(crate) clients: SocketAddr,
    pub(crate) operators: SocketAddr,
    pub(crate) nodes: Vec<Node>,
    pub(crate) gateway: Program,
    pub(crate) directory: TempDir,
}

pub(crate) struct Node {
    pub(crate) addr: SocketAddr,
    pub(crate) program: Option<Program>,
    directory: PathBuf,
    namespace: Option<String>,
}

impl Node {
    /// Starts the neuron, or starts it anew where it was.
    pub(crate) fn start(&mut self) {
        self.program = None;
        let neuron = Path::new(env!("CARGO_BIN_EXE_cortex")).with_file_name("neuron");
        let mut command = match &self.namespace {
            None => Command::new(neuron),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(neuron);
                command
            }
        };
        command.args(["serve", "--config"]).arg(self.directory.join("neuron.toml"));
        self.program = Some(Program::start(command, &self.directory.join("log")));
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.program.as_ref().expect("it runs").signal(signal);
    }
}

/// Where a neuron is.
#[derive(Clone, Debug)]
pub(crate) enum At {
    Loopback,
    /// At this address, in a network namespace of this name.
    Namespace(SocketAddr, String),
    /// On loopback at this address, and the gateway reaches it at another one.
    Behind(SocketAddr, SocketAddr),
}

/// What a fleet is made of.
pub(crate) struct Plan {
    /// Where each neuron is.
    pub(crate) nodes: Vec<At>,
    /// Lines of each `neuron.toml`, besides the memory.
    pub(crate) neuron: String,
    pub(crate) memory_mb: u64,
    /// Lines of `[gateway]`.
    pub(crate) gateway: String,
    pub(crate) models: String,
}

impl Plan {
    /// So many neurons with room for one of these models each.
    pub(crate) fn tight(nodes: usize, models: &[&str]) -> Plan {
        Plan {
            nodes: vec![At::Loopback; nodes],
            neuron: String::new(),
            memory_mb: ROOM_FOR_ONE,
            gateway: String::new(),
            models: models.iter().map(|model| entry(model, "")).collect(),
        }
    }

    pub(crate) async fn start(self) -> Fleet {
        let directory = tempfile::tempdir().expect("a directory");
        let root = models_root();
        let (mut nodes, mut endpoints) = (Vec::new(), Vec::new());
        for (place, at) in self.nodes.into_iter().enumerate() {
            let (addr, namespace) = match &at {
                At::Namespace(addr, namespace) => (*addr, Some(namespace.clone())),
                At::Behind(addr, _) => (*addr, None),
                At::Loopback => (free_port(), None),
            };
            endpoints.push(if let At::Behind(_, wire) = at { wire } else { addr });
            let directory = directory.path().join(format!("n{place}"));
            std::fs::create_dir(&directory).expect("a directory");
            let text = format!(
                "listen = \"{addr}\"\nallow_open_listen = true\nmodel_dirs = [{root:?}]\n{}\n\
                 [harness.native]\nmemory_mb = {}\ndevice = \"cpu\"\n",
                self.neuron, self.memory_mb
            );
            std::fs::write(directory.join("neuron.toml"), text).expect("a file");
            let mut node = Node { addr, program: None, directory, namespace };
            node.start();
            nodes.push(node);
        }
        let (clients, operators) = (free_port(), free_port());
        let mut text = format!(
            "[gateway]\nlisten = \"{clients}\"\nmetrics_listen = \"{operators}\"\n\
             models_config = \"models.toml\"\n{}\n",
            self.gateway
        );
        for (place, addr) in endpoints.iter().enumerate() {
            let _ =
                write!(text, "[[neurons]]\nname = \"n{place}\"\nendpoint = \"http://{addr}\"\n");
        }
        let config = directory.path().join("cortex.toml");
        std::fs::write(&config, text).expect("a file");
        std::fs::write(directory.path().join("models.toml"), self.models).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cortex"));
        command.args(["serve", "--config"]).arg(&config);
        let gateway = Program::start(command, &directory.path().join("cortex.log"));
        let fleet = Fleet { clients, operators, nodes, gateway, directory };
        fleet.until_nodes_are(&["ok"]).await;
        fleet
    }
}

/// An entry of `models.toml` for the sample model under some name.
pub(crate) fn entry(id: &str, more: &str) -> String {
    let source = models_root().join("sprout");
    format!("[[models]]\nid = {id:?}\nsource = {source:?}\nmax_running = 4\n{more}\n")
}

fn models_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    root.canonicalize().expect("the models are in the repository")
}

pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

impl Fleet {
    /// Waits until every node has one of these standings.
    pub(crate) async fn until_nodes_are(&self, wanted: &[&str]) {
        until(async || {
            let Some(answer) = try_get(self.clients, "/health").await else { return false };
            let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().all(|node| wanted.contains(&node["status"].as_str().unwrap_or_default()))
        })
        .await;
    }

    pub(crate) async fn until_node_is(&self, place: usize, wanted: &str) {
        until(async || self.fleet().await["nodes"][place]["status"] == wanted).await;
    }

    pub(crate) async fn fleet(&self) -> Value {
        self.admin("GET", "/admin/fleet", "").await.1
    }

    pub(crate) async fn explain(&self, model: &str) -> Value {
        self.admin("GET", &format!("/admin/explain/{model}"), "").await.1
    }

    pub(crate) async fn admin(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut open = Open::request(self.operators, method, path, "", body.as_bytes()).await;
        let answer = open.read_all().await;
        (answer.status, answer.json())
    }

    /// What a client gets.
    pub(crate) async fn get(&self, path: &str) -> Value {
        try_get(self.clients, path).await.expect("it answers with JSON")
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let mut open = Open::request(self.operators, "GET", "/metrics", "", b"").await;
        let text = open.read_all().await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().expect("a number")
    }

    pub(crate) async fn chat(&self, body: &Value) -> Answer {
        self.post("/v1/chat/completions", body).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        Open::request(self.clients, "POST", path, "", body.as_bytes()).await.read_all().await
    }

    pub(crate) async fn open(&self, path: &str, body: &Value) -> Open {
        let body = body.to_string();
        Open::request(self.clients, "POST", path, "", body.as_bytes()).await
    }

    /// The nodes on which a model is ready, by the gateway's picture.
    pub(crate) async fn ready_on(&self, model: &str) -> Vec<String> {
        let fleet = self.fleet().await;
        let nodes = fleet["nodes"].as_array().cloned().unwrap_or_default();
        let has = |node: &&Value| {
            let models = node["models"].as_array().cloned().unwrap_or_default();
            models.iter().any(|it| it["id"] == model && it["status"] == "ready")
        };
        nodes.iter().filter(has).map(|it| it["name"].as_str().unwrap_or("").to_owned()).collect()
    }

    /// Waits until a model is ready on a node; `false` until it is not there.
    pub(crate) async fn until_ready(&self, model: &str, node: &str, is_ready: bool) {
        let node = node.to_owned();
        until(async || self.ready_on(model).await.contains(&node) == is_ready).await;
    }

    /// Waits until a node itself says that a model is ready on it: of a node that was just started
    /// anew, the gateway's picture may still be that of the one before.
    pub(crate) async fn until_says_ready(&self, model: &str, place: usize) {
        let addr = self.nodes[place].addr;
        until(async || {
            let models = try_get(addr, "/models").await.unwrap_or_default();
            let models = models.as_array().cloned().unwrap_or_default();
            models.iter().any(|it| it["id"] == model && it["status"] == "ready")
        })
        .await;
    }

    /// What the gateway has written to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("cortex.log")).unwrap_or_default()
    }
}

async fn try_get(addr: SocketAddr, path: &str) -> Option<Value> {
    let mut socket = tokio::net::TcpStream::connect(addr).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.ok()?;
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut bytes).await.ok()?;
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    serde_json::from_slice(&bytes[at..]).ok()
}

/// A chat with a few tokens of answer.
pub(crate) fn short(model: &str) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "What is a neuron?"}],
        "max_tokens": 8, "temperature": 0
    })
}

/// A stream that takes seconds.
pub(crate) fn long(model: &str) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "What is a neuron?"}],
        "max_tokens": 3000, "temperature": 0, "ignore_eos": true, "stream": true
    })
}

/// The payloads of a stream's data frames.
pub(crate) fn payloads(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}
