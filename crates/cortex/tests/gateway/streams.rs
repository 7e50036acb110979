//! Streams: unchanged while they last, and never an end that looks like success and is none.

use std::time::Duration;

use control::ModelStatus::Ready;
use proptest::prelude::*;
use testkit::fake_neuron::{Answer, End, FakeNeuron};

use crate::client::{Open, TestGateway, until};

const STREAM: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

fn pieces(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn stream(texts: &[&str], end: End) -> Answer {
    Answer::Stream { pieces: pieces(texts), pause: Duration::ZERO, end }
}

fn token(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

/// Frames with text of two, three and four bytes a letter, cut anywhere.
fn cut_stream() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let frames = prop::collection::vec("[a-zäöü€日本🦀\\\\n ]{0,40}", 1..12);
    (frames, prop::collection::vec(1usize..90, 1..40)).prop_map(|(texts, sizes)| {
        let mut bytes: Vec<u8> = texts.iter().flat_map(|t| token(t).into_bytes()).collect();
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        let mut pieces = Vec::new();
        let mut sizes = sizes.into_iter().cycle();
        while !bytes.is_empty() {
            let size = sizes.next().unwrap_or(1).min(bytes.len());
            pieces.push(bytes.drain(..size).collect());
        }
        pieces
    })
}

#[test]
fn any_stream_arrives_byte_for_byte_however_it_is_cut() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (neuron, gateway) = runtime.block_on(async {
        let neuron = FakeNeuron::start(&[("m", Ready)]).await;
        let gateway = TestGateway::over(&[&neuron]).await;
        (neuron, gateway)
    });
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) };
    proptest!(config, |(pieces in cut_stream())| {
        let sent = pieces.concat();
        let answer = Answer::Stream { pieces, pause: Duration::ZERO, end: End::Clean };
        neuron.answer_with(answer);
        let got = runtime.block_on(gateway.chat(STREAM));
        prop_assert_eq!(got.status, 200);
        prop_assert!(got.complete);
        prop_assert_eq!(got.body, sent);
    });
}

#[tokio::test]
async fn chunks_go_out_one_by_one_as_they_come() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let mut sent: Vec<Vec<u8>> = (0..8).map(|n| token(&n.to_string()).into_bytes()).collect();
    sent.push(b"data: [DONE]\n\n".to_vec());
    let pause = Duration::from_millis(20);
    neuron.answer_with(Answer::Stream { pieces: sent.clone(), pause, end: End::Clean });
    assert_eq!(gateway.chat(STREAM).await.pieces, sent);
    // All at once as well: two pieces never become one.
    let all = Answer::Stream { pieces: sent.clone(), pause: Duration::ZERO, end: End::Clean };
    neuron.answer_with(all);
    assert_eq!(gateway.chat(STREAM).await.pieces, sent);
    // And no piece waits for the next one, which here never comes.
    neuron.answer_with(stream(&[&token("only")], End::Stall));
    Open::chat(gateway.addr, STREAM).await.until_text("only").await;
}

// Requirement 122
#[tokio::test]
async fn a_stream_that_is_cut_ends_with_an_error_event_and_never_with_done() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let whole = token("one");
    let half = "data: {\"choices\":[{\"delta\":{\"con";
    for end in [End::Cut, End::Clean] {
        for (texts, gap) in [
            (vec![whole.as_str()], ""),
            (vec![whole.as_str(), half], "\n\n"),
            (vec![half], "\n\n"),
            (vec![whole.trim_end()], "\n\n"),
        ] {
            neuron.answer_with(stream(&texts, end));
            let got = gateway.chat(STREAM).await;
            assert_eq!(got.status, 200);
            assert!(got.complete, "the gateway's own answer ends properly");
            let text = got.text();
            let sent = texts.concat();
            let event = text.strip_prefix(&sent).and_then(|rest| rest.strip_prefix(gap));
            let event = event.unwrap_or_else(|| panic!("{text:?} does not begin with {sent:?}"));
            let payload = event.strip_prefix("data: ").and_then(|e| e.strip_suffix("\n\n"));
            let payload = payload.unwrap_or_else(|| panic!("{event:?} is no event"));
            let error: serde_json::Value = serde_json::from_str(payload).expect("JSON");
            let mut keys: Vec<_> =
                error["error"].as_object().expect("an envelope").keys().cloned().collect();
            keys.sort();
            assert_eq!(keys, ["code", "message", "param", "type"]);
            assert_eq!(error["error"]["code"], "upstream_disconnected");
            assert!(!text.contains("[DONE]") && !text.contains("127.0.0.1"), "{text}");
        }
    }
    assert!(gateway.metrics().await.contains("why=\"upstream_cut\"} 8"));
}

#[tokio::test]
async fn a_stream_that_ends_with_its_own_error_gets_no_second_one() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let texts = [token("one"), "data: {\"error\":{\"message\":\"m\"}}\n\n".to_owned()];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    neuron.answer_with(stream(&texts, End::Clean));
    assert_eq!(gateway.chat(STREAM).await.text(), texts.concat());
}

#[tokio::test]
async fn a_missing_last_blank_line_is_added() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    neuron.answer_with(stream(&[&token("one"), "data: [DONE]"], End::Clean));
    let wanted = format!("{}data: [DONE]\n\n", token("one"));
    assert_eq!(gateway.chat(STREAM).await.text(), wanted);
}

// Requirement 70
#[tokio::test]
async fn a_silent_stream_is_ended_and_a_slow_one_is_not() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::start(&[neuron.url()], "idle_timeout_secs = 1").await;
    gateway.until_nodes(|status| status == "ok").await;
    neuron.answer_with(stream(&[&token("one")], End::Stall));
    let text = gateway.chat(STREAM).await.text();
    assert!(text.contains("\"code\":\"upstream_timeout\""), "{text}");
    // The neuron is told at once.
    until(async || neuron.left_early() == 1).await;

    let mut slow: Vec<Vec<u8>> = (0..3).map(|n| token(&n.to_string()).into_bytes()).collect();
    slow.push(b"data: [DONE]\n\n".to_vec());
    let pause = Duration::from_millis(600);
    neuron.answer_with(Answer::Stream { pieces: slow.clone(), pause, end: End::Clean });
    assert_eq!(gateway.chat(STREAM).await.body, slow.concat());
}

// Requirement 73
#[tokio::test]
async fn a_client_that_leaves_closes_the_upstream_connection() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;

    neuron.answer_with(stream(&[&token("one")], End::Stall));
    let mut open = Open::chat(gateway.addr, STREAM).await;
    open.until_text("one").await;
    drop(open);
    until(async || neuron.left_early() == 1).await;

    // Before the first byte as well.
    neuron.answer_with(Answer::Silence);
    let open = Open::chat(gateway.addr, STREAM).await;
    until(async || neuron.received().len() == 2).await;
    drop(open);
    until(async || neuron.left_early() == 2).await;

    until(async || gateway.metrics().await.contains("why=\"client_gone\"} 2")).await;
    assert!(gateway.metrics().await.contains("cortex_requests_in_flight 0\n"));
}

#[tokio::test]
async fn a_stop_lets_an_open_stream_finish_and_takes_no_new_connection() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let mut gateway = TestGateway::over(&[&neuron]).await;
    let mut sent: Vec<Vec<u8>> = (0..5).map(|n| token(&n.to_string()).into_bytes()).collect();
    sent.push(b"data: [DONE]\n\n".to_vec());
    let pause = Duration::from_millis(60);
    neuron.answer_with(Answer::Stream { pieces: sent.clone(), pause, end: End::Clean });
    let mut open = Open::chat(gateway.addr, STREAM).await;
    open.until_text("\"content\":\"0\"").await;

    gateway.signal_stop();
    assert_eq!(open.read_all().await.body, sent.concat());
    let addr = gateway.addr;
    gateway.until_stopped().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn what_is_open_after_the_grace_ends_with_a_word() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let more = "shutdown_grace_secs = 0";
    let mut gateway = TestGateway::start(&[neuron.url()], more).await;
    gateway.until_nodes(|status| status == "ok").await;
    neuron.answer_with(stream(&[&token("one")], End::Stall));
    let mut streaming = Open::chat(gateway.addr, STREAM).await;
    streaming.until_text("one").await;
    neuron.answer_with(Answer::Silence);
    let mut waiting = Open::chat(gateway.addr, STREAM).await;
    until(async || neuron.received().len() == 2).await;

    gateway.signal_stop();
    let text = streaming.read_all().await.text();
    assert!(text.starts_with(&token("one")) && text.contains("\"code\":\"draining\""), "{text}");
    let got = waiting.read_all().await;
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (503, Some("draining")));
    gateway.until_stopped().await;
}

// Requirement 114
#[tokio::test]
async fn the_first_token_is_counted_once_and_not_at_the_role_chunk() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let first = token("one");
    let pause = Duration::from_millis(60);
    let sent = pieces(&[role, ": keep-alive\n\n", &first, &first, "data: [DONE]\n\n"]);
    neuron.answer_with(Answer::Stream { pieces: sent, pause, end: End::Clean });
    gateway.chat(STREAM).await;
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("cortex_ttft_seconds_count{model=\"m\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("cortex_ttft_seconds_bucket{model=\"m\",le=\"0.1\"} 0\n"),
        "{metrics}"
    );
}
