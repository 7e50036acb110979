//! Dialects that differ from the chat's in how they end and how they refuse.

use std::time::Duration;

use control::ModelStatus::Ready;
use serde_json::{Value, json};
use testkit::fake_neuron::{Answer, End, FakeNeuron};

use crate::client::TestGateway;

const BODY: &str = r#"{"model":"m","stream":true,"max_tokens":5,"messages":[]}"#;

/// A path, what its streams say in the middle, how they end well, and how an error frame begins.
const DIALECTS: [(&str, &str, &str, &str); 3] = [
    (
        "/v1/completions",
        "data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
        "data: [DONE]\n\n",
        "data: {\"error\":{\"message\":",
    ),
    (
        "/v1/messages",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"",
    ),
    (
        "/v1/responses",
        "event: response.output_text.delta\ndata: {\"sequence_number\":6}\n\n",
        "event: response.completed\ndata: {\"sequence_number\":7}\n\n",
        "event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_disconnected\"",
    ),
];

fn stream(text: &str, end: End) -> Answer {
    let pieces = text.as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
    Answer::Stream { pieces, pause: Duration::ZERO, end }
}

// Requirement 122
#[tokio::test]
async fn every_dialects_streams_pass_whole_and_a_cut_one_says_so() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    for (path, middle, end, error) in DIALECTS {
        let post = async || gateway.send("POST", path, "", BODY.as_bytes()).await;
        let whole = format!("{middle}{middle}{end}");
        neuron.answer_with(stream(&whole, End::Clean));
        assert_eq!(post().await.text(), whole);
        for (said, gap) in [(middle.to_owned(), ""), (format!("{middle}event: x"), "\n\n")] {
            for cut in [End::Cut, End::Clean] {
                neuron.answer_with(stream(&said, cut));
                let got = post().await;
                let added = got.text().strip_prefix(&said).expect("what came").to_owned();
                assert!(added.starts_with(&format!("{gap}{error}")), "{path}: {added}");
                assert!(added.ends_with("\n\n") && got.complete);
            }
        }
    }
    // Requirement 10: the added event's number rises.
    neuron.answer_with(stream(DIALECTS[2].1, End::Cut));
    let got = gateway.send("POST", "/v1/responses", "", BODY.as_bytes()).await.text();
    assert!(got.contains("\"sequence_number\":7"), "{got}");
}

#[tokio::test]
async fn refusals_on_anthropics_paths_have_its_envelope_and_ids() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let unknown = json!({"model": "none", "messages": [], "max_tokens": 1}).to_string();
    let table = [
        ("POST", "/v1/messages", "{", 400, "invalid_request_error"),
        ("POST", "/v1/messages", unknown.as_str(), 404, "not_found_error"),
        ("POST", "/v1/messages/count_tokens", unknown.as_str(), 404, "not_found_error"),
        ("GET", "/v1/messages", "", 405, "invalid_request_error"),
        ("GET", "/v1/messages/batches", "", 404, "not_found_error"),
        ("GET", "/v1/models/none", "", 404, "not_found_error"),
    ];
    let headers = "anthropic-version: 2023-06-01\r\nx-request-id: mine-1\r\n";
    for (method, path, body, status, kind) in table {
        let got = gateway.send(method, path, headers, body.as_bytes()).await;
        let envelope = got.json();
        assert_eq!((got.status, &envelope["error"]["type"]), (status, &json!(kind)), "{path}");
        assert_eq!(
            (&envelope["type"], &envelope["request_id"]),
            (&json!("error"), &json!("mine-1"))
        );
        assert_eq!(
            (got.header("request-id"), got.header("x-request-id")),
            (Some("mine-1"), Some("mine-1"))
        );
    }
    neuron.stop();
    gateway.until_nodes(|status| status != "ok").await;
    let known = json!({"model": "m", "messages": [], "max_tokens": 1}).to_string();
    let got = gateway.send("POST", "/v1/messages", "", known.as_bytes()).await;
    assert_eq!((got.status, &got.json()["error"]["type"]), (529, &json!("overloaded_error")));
}

#[tokio::test]
async fn other_routes_are_forwarded_with_their_query_and_headers() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let body = b"{\"input_tokens\":7}".to_vec();
    let content_type = "application/json";
    neuron.answer_with(Answer::Whole { status: 200, content_type, headers: Vec::new(), body });
    for path in ["/v1/messages/count_tokens?beta=true", "/tokenize", "/detokenize"] {
        let headers = "anthropic-version: 2023-06-01\r\nanthropic-beta: a,b\r\n";
        let got = gateway.send("POST", path, headers, b"{\"model\":\"m\"}").await;
        assert_eq!((got.status, got.text().as_str()), (200, "{\"input_tokens\":7}"));
        let received = neuron.received();
        let last = received.last().expect("a request");
        assert_eq!((last.target.as_str(), last.header("anthropic-beta")), (path, Some("a,b")));
    }
}

#[tokio::test]
async fn models_are_listed_in_the_shape_of_who_asks() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let get = async |path| gateway.send("GET", path, "anthropic-version: 1\r\n", b"").await.json();
    let list: Value = get("/v1/models").await;
    assert_eq!((&list["data"][0]["type"], &list["last_id"]), (&json!("model"), &json!("m")));
    assert_eq!(get("/v1/models/m").await["max_input_tokens"], 4096);
    assert_eq!(gateway.get("/v1/models").await.json()["object"], "list");
}
