//! The program under limits.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Program;

use crate::client::{self, Answer};
use crate::{Bad, sprout};

const MODEL: &str = "sprout";
/// What the daemon and each of its children may have of memory that they write to.
const MEMORY_BYTES: u64 = 512 << 20;
/// Processor seconds of a refusal.
const SECONDS: f64 = 5.0;

/// `neuron serve` with the sample model loaded, and since then under limits, which its children
/// inherit.
pub struct Watched {
    program: Program,
    address: SocketAddr,
    dir: TempDir,
    /// What the model says before anything bad was loaded.
    answer: Value,
    engine: u64,
}

impl Watched {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "listen": "127.0.0.1:0",
            "model_dirs": [dir.path()],
            "default_models": [{"model_id": MODEL, "source": sprout()}],
        });
        let file = dir.path().join("neuron.toml");
        fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
        let program = Program::serve(Path::new(env!("CARGO_BIN_EXE_neuron")), &file);
        let address = program.address;
        let mut watched = Self { program, address, dir, answer: Value::Null, engine: 0 };
        while watched.report().await["status"] != "ready" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        watched.engine = watched.report().await["pid"].as_u64().unwrap();
        watched.answer = watched.ask().await;
        let limit = Rlimit { current: Some(MEMORY_BYTES), maximum: Some(MEMORY_BYTES) };
        prlimit(Some(Pid::from_child(&watched.program.child)), Resource::Data, limit).unwrap();
        watched
    }

    async fn report(&self) -> Value {
        client::get(self.address, &format!("/models/{MODEL}")).await.json()
    }

    async fn ask(&self) -> Value {
        let body = json!({"model": MODEL, "temperature": 0,
            "messages": [{"role": "user", "content": "What is a neuron?"}]});
        let answer = client::post(self.address, "/v1/chat/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["choices"][0]["message"].clone()
    }

    /// The same answer, from the same process.
    pub async fn serves_on(&self) {
        assert_eq!(self.ask().await, self.answer);
        assert_eq!(self.report().await["pid"], self.engine);
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file where loads find it.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The client gives up after a while: a load that hangs fails its test.
    pub async fn load(&self, id: &str) -> Answer {
        client::post(self.address, "/models/load", &json!({"model_id": id})).await
    }

    pub async fn refuses_all(&self, all: Vec<Bad>) {
        let mut wrong = Vec::new();
        for (at, bad) in all.iter().enumerate() {
            for (path, bytes) in &bad.files {
                self.put(&format!("{at}/{path}"), bytes);
            }
            let id = format!("{at}/{}", bad.load);
            if let Err(what) = self.refuses(id.trim_end_matches('/'), bad.says).await {
                wrong.push(format!("{}: {what}", bad.name));
            }
            fs::remove_dir_all(self.dir().join(at.to_string())).unwrap();
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
        self.serves_on().await;
    }

    /// A refusal that names file, item and reason, in less than the time it may take.
    pub async fn refuses(&self, id: &str, says: &str) -> Result<(), String> {
        let before = self.seconds();
        let refused = self.load(id).await;
        let took = self.seconds() - before;
        let text = refused.text();
        if refused.status.as_u16() / 100 != 4 {
            return Err(format!("{} {text}", refused.status));
        }
        let error = &refused.json()["error"];
        let word = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        let (file, item, reason) = (word("file"), word("item"), word("reason"));
        if file.is_empty() || item.is_empty() || reason.is_empty() {
            return Err(format!("no file, item or reason: {text}"));
        }
        if !format!("{item}: {reason}").contains(says) {
            return Err(format!("does not say `{says}`: {text}"));
        }
        if text.contains(&*self.dir().to_string_lossy()) {
            return Err(format!("tells where files lie: {text}"));
        }
        if took > SECONDS {
            return Err(format!("took {took} processor seconds"));
        }
        Ok(())
    }

    /// Loads a good file with so many requests that their states exceed the limit.
    pub async fn more_than_the_limit_fails(&self, id: &str) {
        let body = json!({"model_id": id, "max_running": 4096});
        let plan = client::post(self.address, "/models/load?dry_run=1", &body).await;
        let needed = plan.json()["plan"]["needed_bytes"].as_u64();
        assert!(needed > Some(MEMORY_BYTES), "{}", plan.text());
        assert_eq!(plan.json()["plan"]["fits"], true, "{}", plan.text());
        let failed = client::post(self.address, "/models/load", &body).await;
        assert_ne!(failed.status, 200, "{}", failed.text());
    }

    /// Processor time of the daemon and of those of its children that have ended.
    fn seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.program.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // The 14th to the 17th of the line, in ticks of a hundredth.
        fields[11..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }
}
