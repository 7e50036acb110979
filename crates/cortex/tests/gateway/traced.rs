//! Spans to a collector, and the header that ties a node's to them.

use control::ModelStatus::Ready;
use testkit::fake_neuron::{Answer as Script, FakeNeuron};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::client::{PATIENCE, TestGateway};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Takes what is sent to `/v1/traces`, and gives it to the test.
async fn collector() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (sent, received) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let sent = sent.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while socket.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
                    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
                        continue;
                    };
                    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
                    let length: usize = length.and_then(|v| v.trim().parse().ok()).unwrap_or(0);
                    if bytes.len() >= end + 4 + length {
                        let _ = sent.send(std::mem::take(&mut bytes)).await;
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        let _ = socket.write_all(answer).await;
                    }
                }
            });
        }
    });
    (url, received)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len() / 2).map(|n| &hex[2 * n..2 * n + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}

fn holds(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|window| window == words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_one_trace_from_its_client_through_to_the_node() {
    let (url, mut spans) = collector().await;
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let body = br#"{"usage":{"prompt_tokens":7,"completion_tokens":2}}"#.to_vec();
    let (status, headers) = (200, Vec::new());
    neuron.answer_with(Script::Whole { status, content_type: "application/json", headers, body });
    let traces = format!("[traces]\nendpoint = \"{url}\"\n");
    let mut gateway = TestGateway::start(&[neuron.url()], &traces).await;
    gateway.until_nodes(|status| status == "ok").await;
    let header = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    let chat = br#"{"model":"m","messages":[]}"#;
    let answer = gateway.send("POST", "/v1/chat/completions", &header, chat).await;
    assert_eq!(answer.status, 200);
    let received = neuron.received();
    let onward = received[0].header("traceparent").expect("the node continues the trace");
    assert!(onward.starts_with(&format!("00-{TRACE}-")) && onward.ends_with("-01"), "{onward}");
    assert!(!onward.contains(PARENT), "its parent is the gateway's span: {onward}");
    // The last spans are sent when the gateway stops.
    gateway.signal_stop();
    gateway.until_stopped().await;
    let sent = tokio::time::timeout(PATIENCE, spans.recv()).await.expect("it comes");
    let sent = sent.expect("spans");
    assert!(sent.starts_with(b"POST /v1/traces"));
    let own = onward.split('-').nth(2).expect("a span");
    for wanted in [TRACE, PARENT, own] {
        assert!(holds(&sent, &bytes_of(wanted)), "{wanted} is not in the spans");
    }
    for wanted in ["cortex.node", "gen_ai.usage.input_tokens", "/v1/chat/completions"] {
        assert!(holds(&sent, wanted.as_bytes()), "{wanted} is not in the spans");
    }
}

#[tokio::test]
async fn without_a_collector_the_clients_header_passes_as_it_is() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let header = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    gateway.send("POST", "/v1/chat/completions", &header, br#"{"model":"m"}"#).await;
    let wanted = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(neuron.received()[0].header("traceparent"), Some(&*wanted));
}
