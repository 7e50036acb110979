//! One connection that asks, and reads answers without building anything of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::Tree;

/// A server that says nothing for this long has failed the request.
const SILENCE: Duration = Duration::from_secs(30);

/// Whom to ask.
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    pub(super) header: String,
    pub(super) model: String,
    pub(super) tree: Tree,
}

/// A request, ready to be written.
pub(super) struct Ask {
    bytes: Vec<u8>,
}

impl Ask {
    /// A chat of about so many bytes, answered whole.
    pub(super) fn whole(target: &Target, body_bytes: usize) -> Ask {
        Ask::new(target, body_bytes, false)
    }

    /// The same, answered as a stream.
    pub(super) fn stream(target: &Target, body_bytes: usize) -> Ask {
        Ask::new(target, body_bytes, true)
    }

    fn new(target: &Target, body_bytes: usize, stream: bool) -> Ask {
        let model = &target.model;
        let head = format!(
            "{{\"model\":\"{model}\",\"stream\":{stream},\"max_tokens\":32,\
             \"messages\":[{{\"role\":\"user\",\"content\":\""
        );
        let filler = "words and more words, ".repeat(body_bytes / 22 + 1);
        let length = body_bytes.saturating_sub(head.len() + 4);
        let body = format!("{head}{}\"}}]}}", &filler[..length.min(filler.len())]);
        let Target { addr, header, .. } = target;
        let bytes = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {addr}\r\n{header}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Ask { bytes: bytes.into_bytes() }
    }
}

/// An open connection.
pub(super) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// How one request went.
pub(super) struct Went {
    pub(super) took: Duration,
    /// To the first event with words; of a whole answer, to its head.
    pub(super) first: Duration,
    /// HTTP chunks with data.
    pub(super) chunks: u32,
}

/// How the body of an answer ends.
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    pub(super) async fn open(addr: SocketAddr) -> Result<Connection> {
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, buffer: Vec::with_capacity(16 << 10) })
    }

    /// Asks and reads the whole answer; any other status than 200 is an error.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Went> {
        self.ask_until(ask, usize::MAX).await
    }

    /// The same, no further than `chunks` chunks.
    pub(super) async fn ask_until(&mut self, ask: &Ask, chunks: usize) -> Result<Went> {
        let begin = Instant::now();
        self.socket.write_all(&ask.bytes).await?;
        self.buffer.clear();
        let head_end = loop {
            self.read().await?;
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
        };
        let framing = framing(&self.buffer[..head_end])?;
        self.buffer.drain(..head_end);
        let mut went = Went { took: Duration::ZERO, first: begin.elapsed(), chunks: 0 };
        match framing {
            Framing::Length(length) => {
                while self.buffer.len() < length {
                    self.read().await?;
                }
            }
            Framing::Chunked => self.chunks(begin, &mut went, chunks).await?,
        }
        went.took = begin.elapsed();
        Ok(went)
    }

    async fn chunks(&mut self, begin: Instant, went: &mut Went, most: usize) -> Result<()> {
        let mut heard = false;
        loop {
            while let Some(line) = find(&self.buffer, b"\r\n") {
                let size = std::str::from_utf8(&self.buffer[..line])?;
                let size =
                    usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16)?;
                let end = line + 2 + size + 2;
                if self.buffer.len() < end {
                    break;
                }
                if size == 0 {
                    return Ok(());
                }
                if !heard && find(&self.buffer[line..end], b"\"content\":\"w").is_some() {
                    went.first = begin.elapsed();
                    heard = true;
                }
                went.chunks += 1;
                self.buffer.drain(..end);
                if went.chunks as usize >= most {
                    return Ok(());
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        match timeout(SILENCE, self.socket.read_buf(&mut self.buffer)).await?? {
            0 => bail!("the connection was closed: {}", String::from_utf8_lossy(&self.buffer)),
            _ => Ok(()),
        }
    }
}

fn find(bytes: &[u8], words: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, words)
}

fn framing(head: &[u8]) -> Result<Framing> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        bail!("answered {head}");
    }
    let header = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    match header("content-length") {
        Some(length) => Ok(Framing::Length(length.parse()?)),
        None if header("transfer-encoding") == Some("chunked") => Ok(Framing::Chunked),
        None => bail!("the answer has no length: {head}"),
    }
}
