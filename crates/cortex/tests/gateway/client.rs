//! A gateway on free ports, and a client that sees bytes as they come.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cortex::{Config, Server};
use serde_json::Value;
use testkit::fake_neuron::FakeNeuron;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Long enough for a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct TestGateway {
    pub addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl TestGateway {
    /// Fronts `neurons`, named `n0`, `n1`, ...; returns once all of them were heard.
    pub(crate) async fn over(neurons: &[&FakeNeuron]) -> TestGateway {
        let urls: Vec<String> = neurons.iter().map(|neuron| neuron.url()).collect();
        let gateway = TestGateway::start(&urls, "").await;
        gateway.until_nodes(|status| status == "ok").await;
        gateway
    }

    /// `more` goes into `[gateway]`, and may go on with tables of its own; polls are fast where it
    /// does not say.
    pub(crate) async fn start(urls: &[String], more: &str) -> TestGateway {
        let mut text =
            "[gateway]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n".to_owned();
        if !more.contains("poll_interval_ms") {
            text += "poll_interval_ms = 50\n";
        }
        text += &format!("{more}\n");
        for (place, url) in urls.iter().enumerate() {
            text += &format!("[[neurons]]\nname = \"n{place}\"\nendpoint = \"{url}\"\n");
        }
        let config = Config::from_text(&text, "test").expect("a good configuration");
        let server = Server::bind(config).await.expect("free ports");
        let (addr, metrics_addr) = (server.addr(), server.metrics_addr());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        TestGateway { addr, metrics_addr, stop: Some(stop), running }
    }

    pub(crate) async fn until_nodes(&self, wanted: impl Fn(&str) -> bool) {
        until(async || {
            let health = self.get("/health").await.json();
            let nodes = health["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().all(|node| wanted(node["status"].as_str().unwrap_or_default()))
        })
        .await;
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    pub(crate) async fn chat(&self, body: &str) -> Answer {
        self.send("POST", "/v1/chat/completions", "", body.as_bytes()).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Answer {
        let mut open = Open::request(self.addr, method, path, headers, body).await;
        open.read_all().await
    }

    pub(crate) async fn metrics(&self) -> String {
        let mut open = Open::request(self.metrics_addr, "GET", "/metrics", "", b"").await;
        String::from_utf8(open.read_all().await.body).expect("text")
    }

    pub(crate) fn signal_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    pub(crate) async fn until_stopped(self) {
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended.expect("it stops within its grace").expect("it does not panic");
    }
}

/// An answer with its body put together.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    /// As HTTP chunked it, or the one piece that had a length.
    pub pieces: Vec<Vec<u8>>,
    pub body: Vec<u8>,
    /// The body came to its proper end.
    pub complete: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

/// A connection with one request on it.
pub(crate) struct Open {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Open {
    pub(crate) async fn request(
        addr: SocketAddr,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Open {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        Open::raw(addr, &[head.as_bytes(), body].concat()).await
    }

    pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8]) -> Open {
        let mut socket = TcpStream::connect(addr).await.expect("it listens");
        socket.set_nodelay(true).expect("an open socket");
        // A gateway that refuses early may close before it has read everything.
        let _ = socket.write_all(bytes).await;
        Open { socket, buffer: Vec::new() }
    }

    pub(crate) async fn chat(addr: SocketAddr, body: &str) -> Open {
        Open::request(addr, "POST", "/v1/chat/completions", "", body.as_bytes()).await
    }

    /// Reads until `wanted` has come.
    pub(crate) async fn until_text(&mut self, wanted: &str) {
        let reading = async {
            while !self.buffer.windows(wanted.len()).any(|w| w == wanted.as_bytes()) {
                let read = self.socket.read_buf(&mut self.buffer).await.expect("open");
                assert!(read > 0, "ended with {}", String::from_utf8_lossy(&self.buffer));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the text comes");
    }

    /// Reads until so many bytes have come.
    #[allow(dead_code, reason = "only the tests of the real programs ask for it")]
    pub(crate) async fn until_bytes(&mut self, count: usize) {
        let reading = async {
            while self.buffer.len() < count {
                let read = self.socket.read_buf(&mut self.buffer).await.expect("open");
                assert!(read > 0, "ended with {}", String::from_utf8_lossy(&self.buffer));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the bytes come");
    }

    pub(crate) async fn read_all(&mut self) -> Answer {
        let reading =
            async { while matches!(self.socket.read_buf(&mut self.buffer).await, Ok(1..)) {} };
        tokio::time::timeout(PATIENCE, reading).await.expect("the answer ends");
        parse(&self.buffer)
    }
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    let rest = &bytes[end + 4..];
    let mut answer =
        Answer { status, head, pieces: Vec::new(), body: rest.to_vec(), complete: true };
    if answer.header("transfer-encoding") == Some("chunked") {
        (answer.pieces, answer.complete) = dechunk(rest);
        answer.body = answer.pieces.concat();
    } else if let Some(length) = answer.header("content-length") {
        answer.complete = length.parse() == Ok(rest.len());
        answer.pieces = vec![rest.to_vec()];
    }
    answer
}

fn dechunk(mut rest: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut pieces = Vec::new();
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return (pieces, true);
        }
        let start = line + 2;
        let Some(piece) = rest.get(start..start + size) else { break };
        pieces.push(piece.to_vec());
        rest = rest.get(start + size + 2..).unwrap_or_default();
    }
    (pieces, false)
}

/// Waits for a condition, and fails when it does not come about.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "it did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
