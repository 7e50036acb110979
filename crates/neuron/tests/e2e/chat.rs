use std::time::{Duration, Instant};

use serde_json::json;
use testkit::Script;

use crate::client::{payloads, streamed_text};
use crate::node::{Node, says};

/// What the echoing model answers to `hi`: its prompt up to the end of the turn.
const ECHO: &str = "user\nhi";

#[tokio::test]
async fn a_chat_is_answered_whole_and_as_a_stream_with_the_same_words() {
    // Requirement 110.
    let node = Node::with(Script::default()).await;
    let whole = node.chat("hi", json!({})).await;
    assert_eq!(whole.status, 200);
    let body = whole.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "echo");
    assert_eq!(body["choices"][0]["message"]["content"], ECHO);
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let (prompt, completion) =
        (&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]);
    // One token a byte, the markers one each; the end of the turn counts.
    assert_eq!(*completion, 1 + ECHO.len() + 1);
    assert_eq!(*prompt, 1 + ECHO.len() + 2 + 1 + "assistant\n".len());

    let stream = node.stream("hi", json!({"stream_options": {"include_usage": true}})).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert!(!stream.headers["x-request-id"].is_empty());
    let sse = stream.rest().await;
    let chunks = payloads(&sse);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(streamed_text(&sse), ECHO);
    assert!(sse.ends_with("data: [DONE]\n\n"), "{sse}");
    let reasons: Vec<_> =
        chunks.iter().filter_map(|c| c["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(reasons, ["stop"]);
    assert_eq!(chunks.last().unwrap()["usage"]["prompt_tokens"], *prompt);
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], *completion);
    node.settled().await;
    node.stop().await;
}

#[tokio::test]
async fn max_tokens_and_stop_texts_end_an_answer() {
    let node = Node::with(says("one two three ", 1)).await;
    let body = node.chat("go", json!({"max_tokens": 5})).await.json();
    assert_eq!(body["choices"][0]["message"]["content"], "one t");
    assert_eq!(body["choices"][0]["finish_reason"], "length");

    let body = node.chat("go", json!({"stop": ["three"]})).await.json();
    assert_eq!(body["choices"][0]["message"]["content"], "one two ");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    // The engine would have gone on to the end of the context; it was told to stop.
    node.settled().await;
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_work_with_it() {
    // Requirements 73 and 109: while it streams, while it waits for a whole answer, in the line.
    let node = Node::with(Script { max_running: 1, ..says("la ", 5) }).await;
    let mut streaming = node.stream("go", json!({})).await;
    streaming.read_until("la").await;
    let queued = node.stream("go", json!({})).await;
    assert_eq!(queued.status, 200);
    assert_eq!(node.model_health().await.running, 1);
    drop(queued);
    drop(streaming);
    node.settled().await;

    let whole = node.chat("go", json!({}));
    assert!(tokio::time::timeout(Duration::from_millis(200), whole).await.is_err());
    node.settled().await;
    let metrics = node.get("/metrics").await.text();
    let cancelled = "neuron_requests_total{model=\"echo\",outcome=\"cancelled\"} 3";
    assert!(metrics.contains(cancelled), "{metrics}");
    node.stop().await;
}

#[tokio::test]
async fn timings_tell_the_work_from_the_wait() {
    // Requirement 114: ten steps of 20 ms, the first of which is the prompt's.
    let node = Node::with(says("x", 20)).await;
    let timings = node.chat("go", json!({"max_tokens": 10})).await.json()["timings"].clone();
    let between = |name: &str, low: f64, high: f64| {
        let value = timings[name].as_f64().unwrap();
        assert!((low..high).contains(&value), "{name}: {timings}");
    };
    between("queue_ms", 0.0, 200.0);
    between("prompt_ms", 19.0, 200.0);
    between("predicted_ms", 150.0, 2_000.0);
    let rate = node.model_health().await.tok_s_decode;
    assert!((1.0..=50.0).contains(&rate), "{rate}");
    node.stop().await;
}

#[tokio::test]
async fn a_slow_reader_slows_nobody_else() {
    let script = Script { context: 40_000, ..says("abcdefgh ", 0) };
    let node = Node::with(script).await;
    // Far more text than all buffers between here and there can hold.
    let slow = node.stream("go", json!({"max_tokens": 30_000})).await;
    let began = Instant::now();
    let quick = node.chat("go", json!({"max_tokens": 100})).await;
    assert_eq!(quick.json()["usage"]["completion_tokens"], 100);
    assert!(began.elapsed() < Duration::from_secs(5));
    // The engine is done with the slow one as well, though nobody has read it.
    node.settled().await;
    let sse = slow.rest().await;
    assert_eq!(streamed_text(&sse).len(), 30_000);
    assert!(sse.ends_with("data: [DONE]\n\n"));
    node.stop().await;
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    // Requirement 8: the first after one second, and the answer comes through all the same.
    let node = Node::with(says("x", 1_300)).await;
    let began = Instant::now();
    let mut stream = node.stream("go", json!({"max_tokens": 2})).await;
    stream.read_until(": keep-alive\n\n").await;
    assert!(began.elapsed() >= Duration::from_millis(900));
    let sse = stream.rest().await;
    assert_eq!(streamed_text(&sse), "xx");
    assert!(sse.ends_with("data: [DONE]\n\n"));
    node.stop().await;
}

#[tokio::test]
async fn broken_numbers_end_one_answer_only() {
    // Requirement 111.
    let node = Node::with(Script { not_finite_after: Some(3), ..says("abcdef", 5) }).await;
    let (broken, fine) =
        tokio::join!(node.chat("go", json!({})), node.chat("go", json!({"max_tokens": 2})));
    assert_eq!(broken.status, 500);
    assert_eq!(broken.json()["error"]["code"], "numerical_error");
    assert_eq!(fine.json()["choices"][0]["message"]["content"], "ab");
    let sse = node.stream("go", json!({})).await.rest().await;
    assert_eq!(payloads(&sse).last().unwrap()["error"]["code"], "numerical_error");
    assert!(!sse.contains("[DONE]"));
    node.stop().await;
}

#[tokio::test]
async fn models_are_listed_in_openai_s_shape() {
    let node = Node::with(Script::default()).await;
    let list = node.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "echo");
    assert_eq!(list["data"][0]["max_model_len"], 4096);
    assert_eq!(list["data"][0]["limit"]["context"], 4096);
    assert_eq!(node.get("/v1/models/echo").await.json()["object"], "model");
    let unknown = node.get("/v1/models/none").await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    node.stop().await;
}
