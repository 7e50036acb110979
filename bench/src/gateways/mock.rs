//! `bench mock`: an engine that costs next to nothing, for measuring what stands before it.
//!
//! It answers a chat with 200 bytes, or with a stream of so many chunks, and is enough of a neuron
//! and of an OpenAI server for gateways to take it for one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What `bench mock` can be told.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:18000")]
    listen: SocketAddr,
    /// The model's id.
    #[arg(long, default_value = "mock")]
    model: String,
    /// Chunks of a stream, besides its end.
    #[arg(long, default_value_t = 32)]
    chunks: usize,
    /// The pause before each chunk but the first, in milliseconds.
    #[arg(long, default_value_t = 10)]
    pause_ms: u64,
}

/// What is answered, ready to be written.
struct Answers {
    whole: Vec<u8>,
    stream_head: &'static [u8],
    chunk: Vec<u8>,
    stream_end: Vec<u8>,
    chunks: usize,
    pause: Duration,
    model: String,
    listen: SocketAddr,
}

/// Serves until it is killed.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let listener = TcpListener::bind(options.listen).await?;
    let listen = listener.local_addr()?;
    eprintln!("mock listens on {listen}");
    let answers: &'static Answers = Box::leak(Box::new(Answers::new(&options, listen)));
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A peer that leaves ends its connection and nothing else.
            let _ = serve(socket, answers).await;
        });
    }
}

impl Answers {
    fn new(options: &Options, listen: SocketAddr) -> Answers {
        let chunk = |delta: Value, finish: Option<&str>| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
            let event = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
                "model": options.model, "choices": [choice]});
            chunked(format!("data: {event}\n\n").as_bytes())
        };
        let usage = json!({"prompt_tokens": 40, "completion_tokens": 32, "total_tokens": 72});
        let message = json!({"role": "assistant", "content": "words"});
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        let whole = json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1,
            "model": options.model, "choices": [choice], "usage": usage});
        let end =
            [chunk(json!({}), Some("stop")), chunked(b"data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()];
        Answers {
            whole: with_length(whole.to_string().as_bytes()),
            stream_head: b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                           cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n",
            chunk: chunk(json!({"content": "word "}), None),
            stream_end: end.concat(),
            chunks: options.chunks,
            pause: Duration::from_millis(options.pause_ms),
            model: options.model.clone(),
            listen,
        }
    }

    /// What gateways ask before they send anything.
    fn about(&self, path: &str) -> Vec<u8> {
        let Answers { model, listen, .. } = self;
        let body = match path {
            "/health" => json!({"uptime_secs": 1, "status": "ok"}),
            "/discovery" => json!({"hostname": "mock", "os": "linux", "kernel": "", "version": "",
                "harnesses": ["native"]}),
            "/models" => json!([{"id": model, "harness": "native", "status": "ready",
                "devices": [], "world_size": 1, "vram_used_mb": 0,
                "endpoint": format!("http://{listen}"), "capabilities": ["chat"],
                "limit": {"context": 131_072}, "dialects": ["openai_chat"]}]),
            "/get_model_info" | "/model_info" => {
                json!({"model_path": model, "is_generation": true})
            }
            "/get_server_info" | "/server_info" => {
                json!({"model_path": model, "served_model_name": model, "dp_size": 1})
            }
            _ => json!({"object": "list", "data": [{"id": model, "object": "model",
                "created": 1, "owned_by": "mock"}]}),
        };
        with_length(body.to_string().as_bytes())
    }
}

fn chunked(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn serve(mut socket: TcpStream, answers: &Answers) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4 << 10);
    loop {
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let (is_chat, body_end) = match read_head(&buffer[..head_end]) {
            Head::Chat { length } => (true, head_end + length),
            Head::Chunked => (true, body_of_chunks(&mut socket, &mut buffer, head_end).await?),
            Head::Other { path } => {
                socket.write_all(&answers.about(&path)).await?;
                (false, head_end)
            }
        };
        while buffer.len() < body_end {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        if is_chat {
            let body = &buffer[head_end..body_end];
            let body = &body[..body.len().min(512)];
            let is_stream = [&b"\"stream\":true"[..], b"\"stream\": true"];
            match is_stream.iter().any(|key| memchr::memmem::find(body, key).is_some()) {
                true => stream(&mut socket, answers).await?,
                false => socket.write_all(&answers.whole).await?,
            }
        }
        buffer.drain(..body_end);
    }
}

enum Head {
    Chat { length: usize },
    Chunked,
    Other { path: String },
}

fn read_head(head: &[u8]) -> Head {
    let text = String::from_utf8_lossy(head);
    if !text.starts_with("POST ") {
        let path = text.split(' ').nth(1).unwrap_or_default();
        return Head::Other { path: path.split('?').next().unwrap_or_default().to_owned() };
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.map_or(Head::Chunked, |length| Head::Chat { length })
}

/// Reads until a chunked body has ended, and says where.
async fn body_of_chunks(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
    from: usize,
) -> std::io::Result<usize> {
    loop {
        if let Some(at) = memchr::memmem::find(&buffer[from..], b"0\r\n\r\n") {
            return Ok(from + at + 5);
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(buffer.len());
        }
    }
}

async fn stream(socket: &mut TcpStream, answers: &Answers) -> std::io::Result<()> {
    let first = [answers.stream_head, &answers.chunk].concat();
    socket.write_all(&first).await?;
    for _ in 1..answers.chunks {
        if !answers.pause.is_zero() {
            tokio::time::sleep(answers.pause).await;
        }
        socket.write_all(&answers.chunk).await?;
    }
    socket.write_all(&answers.stream_end).await
}

#[cfg(test)]
mod tests {
    use super::super::connection::{Ask, Connection, Target};
    use super::super::process::Tree;
    use super::*;

    #[tokio::test]
    async fn it_answers_whole_and_in_chunks() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(listen).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let options = Options { listen: addr, model: "mock".into(), chunks: 5, pause_ms: 1 };
        let answers: &'static Answers = Box::leak(Box::new(Answers::new(&options, addr)));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, answers));
            }
        });
        let header = "x-any: thing".to_owned();
        let target = Target { addr, header, model: "mock".into(), tree: Tree::of(0) };
        let mut connection = Connection::open(addr).await.expect("it listens");
        for _ in 0..3 {
            let went = connection.ask(&Ask::whole(&target, 32 << 10)).await.expect("whole");
            assert_eq!(went.chunks, 0);
            let went = connection.ask(&Ask::stream(&target, 200)).await.expect("a stream");
            assert!(went.chunks >= 5, "{}", went.chunks);
            assert!(went.first <= went.took);
        }
    }
}
