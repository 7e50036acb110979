//! As much of an HTTP client as the tests need.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Nothing here takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A complete answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// An answer whose body is read piece by piece. Dropping it closes the connection.
pub struct Opened {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    read: String,
    connection: JoinHandle<()>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Opened {
    /// Reads on until the frames so far, or the text that they spell, contain this; panics if the
    /// body ends first, or if nothing but signs of life comes for long.
    pub async fn read_until(&mut self, wanted: &str) {
        let found = tokio::time::timeout(PATIENCE, self.read_on_until(wanted)).await;
        assert!(found.is_ok(), "never came {wanted:?}: {}", self.read);
    }

    async fn read_on_until(&mut self, wanted: &str) {
        while !self.read.contains(wanted) && !streamed_text(&self.read).contains(wanted) {
            assert!(self.more().await, "ended before {wanted:?}: {}", self.read);
        }
    }

    /// Everything up to the end of the body.
    pub async fn rest(mut self) -> String {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    async fn more(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
        match frame.expect("the body went silent") {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                self.read.push_str(std::str::from_utf8(&data).unwrap());
                true
            }
            Some(Err(error)) => panic!("the body broke off: {error}, after {}", self.read),
            None => false,
        }
    }
}

/// A request with any headers; a body goes along as JSON unless they say otherwise.
pub fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "node:1");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

/// Sends a request over a connection of its own and waits for the answer's head.
pub async fn open(address: SocketAddr, request: Request<Full<Bytes>>) -> Opened {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
    let (head, body) = response.expect("no answer").unwrap().into_parts();
    Opened { status: head.status, headers: head.headers, body, read: String::new(), connection }
}

pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let opened = open(address, request).await;
    let (status, headers) = (opened.status, opened.headers.clone());
    let body = opened.rest().await.into();
    Answer { status, headers, body }
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, request("GET", path, &[], b"")).await
}

pub async fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    send(address, request("POST", path, &[], body.to_string().as_bytes())).await
}

/// The JSON payloads of a stream, without comments and `[DONE]`.
pub fn payloads(sse: &str) -> Vec<Value> {
    let whole = &sse[..sse.rfind("\n\n").unwrap_or(0)];
    let data = whole.split("\n\n").filter_map(|frame| frame.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// The text of a streamed chat.
pub fn streamed_text(sse: &str) -> String {
    let chunks = payloads(sse);
    let pieces = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str());
    pieces.collect()
}
