//! A neuron without an engine: real sockets on loopback, answers from a script.
//!
//! It writes HTTP by hand, so that a test decides where chunks end, when a connection breaks and
//! what the other side is seen to do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control::{Discovery, Health, HealthStatus, Limit, ModelHealth, ModelReport, ModelStatus};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How inference requests are answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One body with its length.
    Whole {
        /// The status code.
        status: u16,
        /// The media type.
        content_type: &'static str,
        /// Further header lines, each as `name: value`.
        headers: Vec<&'static str>,
        /// The body.
        body: Vec<u8>,
    },
    /// An event stream, one HTTP chunk a piece.
    Stream {
        /// The pieces, sent as they are.
        pieces: Vec<Vec<u8>>,
        /// The wait before each piece.
        pause: Duration,
        /// What follows the last piece.
        end: End,
    },
    /// The connection is closed without a byte.
    Nothing,
    /// No byte is ever sent.
    Silence,
}

/// What follows the last piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last chunk of HTTP: the stream is complete.
    Clean,
    /// The connection is closed in the middle of the body.
    Cut,
    /// Nothing; the connection stays open.
    Stall,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// The path with its query.
    pub target: String,
    /// The header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A running fake; it stops when it is dropped.
pub struct FakeNeuron {
    addr: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    script: Mutex<Script>,
    received: Mutex<Vec<Received>>,
    polls: AtomicUsize,
    left: AtomicUsize,
}

struct Script {
    models: Vec<ModelReport>,
    running: u32,
    answer: Answer,
    is_hung: bool,
    status: HealthStatus,
}

impl FakeNeuron {
    /// Listens on a free port with these models in this state; every ready one is served here.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn start(models: &[(&str, ModelStatus)]) -> FakeNeuron {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let answer = Answer::Stream { pieces: Vec::new(), pause: Duration::ZERO, end: End::Clean };
        let script = Script {
            models: models.iter().map(|(id, status)| report(id, *status, addr)).collect(),
            running: 0,
            answer,
            is_hung: false,
            status: HealthStatus::Ok,
        };
        let state = Arc::new(State {
            script: Mutex::new(script),
            received: Mutex::default(),
            polls: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        FakeNeuron { addr, state, accepting }
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// From now on, inference requests are answered so.
    pub fn answer_with(&self, answer: Answer) {
        self.state.script().answer = answer;
    }

    /// From now on, `GET /models` says so.
    pub fn hold(&self, models: &[(&str, ModelStatus)]) {
        let reports = models.iter().map(|(id, status)| report(id, *status, self.addr));
        self.state.script().models = reports.collect();
    }

    /// From now on, every model reports so many running requests.
    pub fn report_running(&self, running: u32) {
        self.state.script().running = running;
    }

    /// From now on, polls get no answer; or get one again.
    pub fn hang(&self, is_hung: bool) {
        self.state.script().is_hung = is_hung;
    }

    /// From now on, `GET /health` says that the node does not serve.
    pub fn refuse_service(&self) {
        self.state.script().status = HealthStatus::Unavailable;
    }

    /// Inference requests so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Polls of `/health` that came so far, hung ones included.
    #[must_use]
    pub fn polls(&self) -> usize {
        self.state.polls.load(Ordering::SeqCst)
    }

    /// Inference requests whose caller closed the connection before the answer's end.
    #[must_use]
    pub fn left_early(&self) -> usize {
        self.state.left.load(Ordering::SeqCst)
    }

    /// Stops listening: further connections are refused.
    pub fn stop(&self) {
        self.accepting.abort();
    }
}

impl Drop for FakeNeuron {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report(id: &str, status: ModelStatus, addr: SocketAddr) -> ModelReport {
    ModelReport {
        id: id.to_owned(),
        harness: "native".to_owned(),
        status,
        devices: Vec::new(),
        world_size: 1,
        quant: None,
        vram_used_mb: 0,
        endpoint: (status == ModelStatus::Ready).then(|| format!("http://{addr}/")),
        capabilities: vec!["chat".to_owned()],
        limit: Limit { context: 4096, output: None },
        dialects: vec!["openai_chat".to_owned()],
        progress: None,
        error: None,
        pid: None,
        fast_paths: Vec::new(),
        host_used_mb: 0,
        prefix_digests: Vec::new(),
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Connections belong to the listener's task: when it ends, so do they.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            // A peer that leaves ends its connection and nothing else.
            let _ = serve(socket, &state).await;
        });
    }
}

async fn serve(mut socket: TcpStream, state: &State) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut socket, &mut buffer).await? {
        let path = request.target.split('?').next().unwrap_or_default().to_owned();
        if path.starts_with("/v1/") || path.ends_with("tokenize") {
            let answer = state.script().answer.clone();
            state.received.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            if !play(&mut socket, answer, state).await? {
                return Ok(());
            }
            continue;
        }
        if path == "/health" {
            state.polls.fetch_add(1, Ordering::SeqCst);
        }
        if state.script().is_hung {
            std::future::pending::<()>().await;
        }
        let body = control_plane(&path, state);
        let status = if body.is_empty() { 404 } else { 200 };
        socket.write_all(&whole(status, "application/json", &[], &body)).await?;
    }
    Ok(())
}

fn control_plane(path: &str, state: &State) -> Vec<u8> {
    let script = state.script();
    match path {
        "/models" => json(&script.models),
        "/discovery" => json(&Discovery { hostname: "fake".to_owned(), ..Discovery::default() }),
        "/health" => {
            let running = script.running;
            let gauges = |model: &ModelReport| ModelHealth {
                id: model.id.clone(),
                running,
                prefix_looked_up_tokens: 40,
                prefix_hit_tokens: 30,
                ..ModelHealth::default()
            };
            json(&Health {
                uptime_secs: 1,
                status: script.status,
                devices: Vec::new(),
                host_memory: None,
                models: script.models.iter().map(gauges).collect(),
                activation: control::Activation::default(),
            })
        }
        _ => Vec::new(),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data serialises")
}

/// Whether the connection can take another request.
async fn play(socket: &mut TcpStream, answer: Answer, state: &State) -> std::io::Result<bool> {
    match answer {
        Answer::Whole { status, content_type, headers, body } => {
            socket.write_all(&whole(status, content_type, &headers, &body)).await?;
            Ok(true)
        }
        Answer::Nothing => Ok(false),
        Answer::Silence => {
            watch(socket, state, std::future::pending()).await;
            Ok(false)
        }
        Answer::Stream { pieces, pause, end } => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                        transfer-encoding: chunked\r\n\r\n";
            socket.write_all(head.as_bytes()).await?;
            for piece in pieces {
                if !pause.is_zero() && !watch(socket, state, tokio::time::sleep(pause)).await {
                    return Ok(false);
                }
                let size = format!("{:x}\r\n", piece.len());
                socket.write_all(&[size.as_bytes(), &piece, b"\r\n"].concat()).await?;
            }
            match end {
                End::Clean => socket.write_all(b"0\r\n\r\n").await?,
                End::Cut => return Ok(false),
                End::Stall => {
                    watch(socket, state, std::future::pending()).await;
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// Waits for `until`; false, and counted, when the peer closes first.
async fn watch(socket: &mut TcpStream, state: &State, until: impl Future<Output = ()>) -> bool {
    let mut byte = [0];
    tokio::select! {
        () = until => true,
        read = socket.read(&mut byte) => {
            if !matches!(read, Ok(1)) {
                state.left.fetch_add(1, Ordering::SeqCst);
            }
            false
        }
    }
}

fn whole(status: u16, content_type: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut out = format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n"
    );
    for header in headers {
        out.push_str(header);
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
    [out.as_bytes(), body].concat()
}

/// One request with a `content-length` body; none at the connection's end.
async fn read_request(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Received>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.filter_map(header).collect();
    let mut request = Received { target: target.to_owned(), headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let body_start = head_end + 4;
    while buffer.len() < body_start + length {
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    request.body = buffer[body_start..body_start + length].to_vec();
    buffer.drain(..body_start + length);
    Ok(Some(request))
}
