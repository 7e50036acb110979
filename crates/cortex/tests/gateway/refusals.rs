//! What clients hear when cortex itself answers no.

use control::ModelStatus::{Failed, Loading, Ready, Restarting};
use testkit::fake_neuron::FakeNeuron;

use crate::client::{Answer, Open, TestGateway};

/// All four keys, and nothing of the nodes' addresses (requirements 4 and 32).
fn check(answer: &Answer, status: u16, code: Option<&str>, retryable: bool) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let error = answer.json()["error"].clone();
    let mut keys: Vec<_> = error.as_object().expect("an envelope").keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["code", "message", "param", "type"]);
    assert_eq!(error["code"].as_str(), code, "{error}");
    assert!(!answer.text().contains("127.0.0.1"), "{error}");
    assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()));
    // Requirements 5 and 132.
    assert_eq!(answer.header("retry-after").is_some(), retryable, "{}", answer.head);
    let advice = if retryable { "true" } else { "false" };
    assert_eq!(answer.header("x-should-retry"), Some(advice), "{}", answer.head);
}

#[tokio::test]
async fn each_refusal_has_its_status_code_and_advice() {
    let models = [("m", Ready), ("slow", Loading), ("back", Restarting), ("bad", Failed)];
    let neuron = FakeNeuron::start(&models).await;
    let gateway = TestGateway::start(&[neuron.url()], "hold_timeout_secs = 1").await;
    gateway.until_nodes(|status| status == "ok").await;
    for (body, status, code, retryable) in [
        (r#"{"model":"nope"}"#, 404, Some("model_not_found"), false),
        (r#"{"model":"slow"}"#, 503, Some("loading"), true),
        (r#"{"model":"back"}"#, 503, Some("loading"), true),
        (r#"{"model":"bad"}"#, 503, Some("cannot_be_placed"), false),
        (r#"{"model":7}"#, 400, Some("invalid_value"), false),
        (r#"{"messages":[]}"#, 400, Some("missing_required_parameter"), false),
        ("", 400, None, false),
        ("[]", 400, None, false),
        (r#"{"model":"m""#, 400, None, false),
    ] {
        check(&gateway.chat(body).await, status, code, retryable);
    }
    assert!(neuron.received().is_empty(), "nothing of this reached the node");
}

// Requirement 3
#[tokio::test]
async fn broken_json_is_placed_by_line_and_column() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let answer = gateway.chat("{\n  \"model\": }").await;
    let said = answer.text();
    assert!(said.contains("line 2 column 12"), "{said}");
}

#[tokio::test]
async fn paths_and_methods() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    check(&gateway.get("/v2/nope").await, 404, Some("not_found"), false);
    check(&gateway.get("/v1/models/nope").await, 404, Some("model_not_found"), false);
    for (method, path, allow) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/m", "GET, HEAD"),
        ("PUT", "/health", "GET, HEAD"),
    ] {
        let answer = gateway.send(method, path, "", b"").await;
        check(&answer, 405, Some("method_not_allowed"), false);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    let answer = gateway.send("HEAD", "/", "", b"").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(gateway.get("/version").await.json()["name"], "cortex");
}

// Requirement 116
#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_and_while_it_is_read() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::start(&[neuron.url()], "body_limit_mb = 1").await;
    gateway.until_nodes(|status| status == "ok").await;

    let declared = "content-length: 1048577\r\n";
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n{declared}\r\n");
    let answer = raw(&gateway, head.as_bytes()).await;
    check(&answer, 413, Some("request_too_large"), false);

    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [b"80000\r\n", &vec![b' '; 0x80000][..], b"\r\n"].concat();
    let all = [head.as_bytes(), &chunk, &chunk, b"1\r\n \r\n0\r\n\r\n"].concat();
    check(&raw(&gateway, &all).await, 413, Some("request_too_large"), false);

    let mut fits = r#"{"model":"nope"}"#.to_owned();
    fits.push_str(&" ".repeat((1 << 20) - fits.len()));
    check(&gateway.chat(&fits).await, 404, Some("model_not_found"), false);
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let path = "/v1/chat/completions";
    let answer = gateway.send("POST", path, "content-encoding: gzip\r\n", b"x").await;
    check(&answer, 415, Some("unsupported_media_type"), false);
}

// Requirements 68, 69 and 119
#[tokio::test]
async fn a_model_whose_node_is_gone_is_unavailable_and_stays_listed() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    assert_eq!(gateway.get("/health").await.status, 200);
    neuron.stop();
    gateway.until_nodes(|status| status == "lost").await;
    check(&gateway.chat(r#"{"model":"m"}"#).await, 503, Some("node_unavailable"), true);
    assert_eq!(gateway.get("/health").await.status, 503);
    let model = gateway.get("/v1/models/m").await.json();
    assert_eq!(model["loaded"], false);
    assert_eq!(model["locations"][0]["status"], "lost");
}

#[tokio::test]
async fn a_node_that_was_never_heard_makes_no_model_unknown() {
    let gateway = TestGateway::start(&["http://127.0.0.1:1".to_owned()], "").await;
    check(&gateway.chat(r#"{"model":"m"}"#).await, 503, Some("node_unavailable"), true);
    gateway.until_nodes(|status| status == "lost").await;
    check(&gateway.chat(r#"{"model":"m"}"#).await, 503, Some("node_unavailable"), true);
}

#[tokio::test]
async fn a_refused_connection_is_an_error_and_not_a_host_name() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    neuron.stop();
    // Until the third missed poll the node is still tried.
    let answer = gateway.chat(r#"{"model":"m"}"#).await;
    check(&answer, 503, Some("node_unavailable"), true);
}

async fn raw(gateway: &TestGateway, bytes: &[u8]) -> Answer {
    let mut open = Open::raw(gateway.addr, bytes).await;
    open.read_all().await
}
