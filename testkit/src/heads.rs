//! Heads and framings of requests that no client of good will sends, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request as bytes, and the statuses that are right for it.
pub struct HeadCase {
    /// What is wrong with it.
    pub name: &'static str,
    /// All that is sent.
    pub bytes: Vec<u8>,
    /// Any of these.
    pub statuses: &'static [u16],
}

/// Sends bytes and gives back all that comes until the connection ends.
///
/// # Panics
///
/// If nothing listens there, or the connection does not end.
pub async fn told(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // A refusal may come before all is written.
    let _ = stream.write_all(bytes).await;
    let mut read = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await;
    assert!(end.is_ok(), "neither an answer's end nor the connection's: {read:?}");
    String::from_utf8_lossy(&read).into_owned()
}

/// The status of the first answer in what came back; 0 where there is none.
#[must_use]
pub fn status_of(told: &str) -> u16 {
    told.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The body that all cases have which have a good one.
fn body(model: &str) -> String {
    format!("{{\"model\": \"{model}\", \"prompt\": \"hi\", \"max_tokens\": 1}}")
}

/// A request for an answer of one token; `heads` stand between its host and its body.
fn post(heads: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/completions HTTP/1.1\r\nhost: n\r\ncontent-type: application/json\r\n\
         connection: close\r\n{heads}\r\n{body}"
    )
    .into_bytes()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").into_bytes()
}

/// Bodies whose length is told in ways that two readers could take differently.
fn framings(model: &str) -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let body = body(model);
    let chunked = |body: &str| post("transfer-encoding: chunked\r\n", body);
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("content-length: {}\r\n", body.len());
    vec![
        ("a good one", post(&length, &body), &[200]),
        ("a good one in chunks", chunked(&chunks), &[200]),
        ("two lengths", post(&format!("{length}content-length: 3\r\n"), &body), &[400]),
        ("a length that is none", post("content-length: x\r\n", &body), &[400]),
        ("an unknown coding", post("transfer-encoding: xchunked\r\n", &chunks), &[400, 501]),
        ("a last coding", post("transfer-encoding: chunked, identity\r\n", &chunks), &[400, 501]),
        ("a size that is none", chunked("zz\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("a size beyond all", chunked("fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("a compressed body", post(&format!("content-encoding: gzip\r\n{length}"), &body), &[415]),
        ("an upgrade", post(&format!("upgrade: websocket\r\n{length}"), &body), &[200]),
    ]
}

/// Requests whose heads or framings are broken, beside two good ones. Robustness 3 to 20.
#[must_use]
pub fn head_cases(model: &str) -> Vec<HeadCase> {
    let many: String = (0..120).map(|at| format!("x-{at}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(70 << 10));
    let hosts = |heads: &str| {
        format!("GET /v1/models HTTP/1.1\r\n{heads}connection: close\r\n\r\n").into_bytes()
    };
    let mut cases = framings(model);
    cases.extend([
        ("many headers", post(&many, ""), &[431][..]),
        ("a long header", post(&long, ""), &[431]),
        ("a long address", get(&format!("/{}", "x".repeat(9 << 10))), &[414]),
        ("no host", hosts(""), &[400]),
        ("two hosts", hosts("host: a\r\nhost: b\r\n"), &[400]),
        ("dots", get("/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd"), &[404]),
        ("a zero", get("/v1/models/a%00b"), &[404]),
        ("two slashes", get("//v1/models"), &[404]),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec(), &[400]),
    ]);
    let case = |(name, bytes, statuses)| HeadCase { name, bytes, statuses };
    cases.into_iter().map(case).collect()
}

/// A request with a length beside its chunks, the length short, and another request where a reader
/// that goes by the length would look for one. Robustness 6.
#[must_use]
pub fn smuggled(model: &str) -> Vec<Vec<u8>> {
    let body = body(model);
    let inner = "GET /smuggled HTTP/1.1\r\nhost: n\r\n\r\n";
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n{inner}", body.len());
    let orders = [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ];
    orders.map(|heads| post(heads, &chunks)).into()
}
