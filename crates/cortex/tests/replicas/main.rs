//! Two gateways, as real processes, on one Postgres: they spend one budget.

mod postgres;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::ModelStatus::Ready;
use cortex::hash_key;
use testkit::fake_neuron::{Answer, FakeNeuron};

use postgres::Postgres;

const CAP: u64 = 6_000;
const EACH: u64 = 1_000;
const SECRET: &str = "sk-of-ann";
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway's process; it ends with the test.
struct Gateway {
    child: Child,
    clients: SocketAddr,
    operators: SocketAddr,
    _file: tempfile::NamedTempFile,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound")
}

impl Gateway {
    fn start(neuron: &str, ledger: &str) -> Gateway {
        let (clients, operators) = (free_addr(), free_addr());
        let sha256 = hash_key(SECRET.as_bytes());
        let text = format!(
            "[gateway]\nlisten = \"{clients}\"\nmetrics_listen = \"{operators}\"\n\
             poll_interval_ms = 100\n\
             [ledger]\nurl = \"{ledger}\"\n\
             [[neurons]]\nname = \"n\"\nendpoint = \"{neuron}\"\n\
             [[auth.keys]]\nname = \"ann\"\nsha256 = \"{sha256}\"\nscope = \"admin\"\n\
             budget = {{ tokens = {CAP}, window_secs = 86400 }}\n"
        );
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("it takes text");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cortex"));
        command.args(["serve", "--config"]).arg(file.path()).stderr(Stdio::inherit());
        let child = command.spawn().expect("it starts");
        let gateway = Gateway { child, clients, operators, _file: file };
        let begun = Instant::now();
        while gateway.ask(0).is_none_or(|status| status == 503) {
            assert!(begun.elapsed() < PATIENCE, "it never serves");
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    /// The status of a chat; one of no tokens asks for a model that is not there.
    fn ask(&self, max_tokens: u32) -> Option<u16> {
        let model = if max_tokens == 0 { "none" } else { "m" };
        let body =
            format!(r#"{{"model":"{model}","max_tokens":{},"messages":[]}}"#, max_tokens.max(1));
        let answer = exchange(self.clients, "POST", "/v1/chat/completions", &body)?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    fn usage(&self) -> serde_json::Value {
        let answer = exchange(self.operators, "GET", "/admin/usage", "").expect("it answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    }
}

fn exchange(addr: SocketAddr, method: &str, path: &str, body: &str) -> Option<String> {
    let mut socket = TcpStream::connect(addr).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
         authorization: Bearer {SECRET}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn thousand() -> Answer {
    let body = br#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":900}}"#.to_vec();
    let (status, headers) = (200, Vec::new());
    Answer::Whole { status, content_type: "application/json", headers, body }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_on_one_database_overspend_by_less_than_a_request_each() {
    let Some(postgres) = Postgres::start() else { return };
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    neuron.answer_with(thousand());
    let (url, database) = (neuron.url(), postgres.url());
    let passed = tokio::task::spawn_blocking(move || {
        let gateways = [Gateway::start(&url, &database), Gateway::start(&url, &database)];
        // Twelve at once of each, and then one after another until nothing passes.
        let at_once: u64 = std::thread::scope(|scope| {
            let asks: Vec<_> = (0..24)
                .map(|n| {
                    let gateway = &gateways[n % 2];
                    scope.spawn(move || gateway.ask(900))
                })
                .collect();
            asks.into_iter().map(|ask| u64::from(ask.join().expect("no panic") == Some(200))).sum()
        });
        let after: u64 = (0..12).map(|n| u64::from(gateways[n % 2].ask(900) == Some(200))).sum();
        assert_eq!(gateways[0].ask(900), Some(429));
        assert_eq!(gateways[1].ask(900), Some(429));
        let rows = gateways[1].usage();
        let rows = rows.as_array().expect("a list");
        let spent = rows.iter().filter(|row| row["status"] == 200);
        let spent: u64 =
            spent.map(|row| row["completion_tokens"].as_u64().unwrap_or(0) + 100).sum();
        eprintln!("{at_once} passed at once and {after} after them; {spent} tokens were spent");
        assert_eq!(spent, (at_once + after) * EACH, "both gateways' entries are in one ledger");
        at_once + after
    });
    let passed = passed.await.expect("no panic");
    assert!(passed * EACH >= CAP, "the budget can be spent: {passed}");
    assert!(passed * EACH < CAP + 2 * EACH, "{passed} requests of {EACH} under {CAP}");
    assert_eq!(neuron.received().len() as u64, passed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_cannot_be_looked_up_is_not_spent() {
    let Some(mut postgres) = Postgres::start() else { return };
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    neuron.answer_with(thousand());
    let (url, database) = (neuron.url(), postgres.url());
    let statuses = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&url, &database);
        let first = gateway.ask(900);
        postgres.stop();
        (first, gateway.ask(900))
    });
    assert_eq!(statuses.await.expect("no panic"), (Some(200), Some(503)));
}
