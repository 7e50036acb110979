use neuron::config::Config;
use serde_json::{Value, json};
use testkit::Script;

use crate::client::{self, Answer, request, send};
use crate::node::{MODEL, Node, chat_body};

const CHAT: &str = "/v1/chat/completions";

fn openai(answer: &Answer) -> (u16, Value) {
    let body = answer.json();
    let error = body["error"].as_object().expect("no error envelope");
    // Requirement 4: all four keys, always.
    let mut keys: Vec<_> = error.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["code", "message", "param", "type"], "{body}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert!(!answer.header("x-request-id").is_empty());
    (answer.status.as_u16(), error["code"].clone())
}

fn control(answer: &Answer) -> (u16, Value) {
    let body = answer.json();
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert!(!answer.header("x-request-id").is_empty());
    (answer.status.as_u16(), body["error"]["code"].clone())
}

#[tokio::test]
async fn every_refused_chat_has_the_envelope() {
    // Requirements 3 and 4.
    let node = Node::with(Script::default()).await;
    let raw = async |headers: &[(&str, &str)], body: &[u8]| {
        openai(&send(node.address, request("POST", CHAT, headers, body)).await)
    };
    let body = |more| chat_body("hi", more).to_string();
    assert_eq!(raw(&[], b"").await, (400, Value::Null));
    assert_eq!(raw(&[], b"{\"model\":").await, (400, Value::Null));
    assert_eq!(raw(&[], b"[]").await, (400, Value::Null));
    assert_eq!(raw(&[], b"{}").await, (400, json!("missing_required_parameter")));
    let plain = [("content-type", "text/plain")];
    let fine = body(json!({}));
    let unsupported = (415, json!("unsupported_media_type"));
    assert_eq!(raw(&plain, fine.as_bytes()).await, unsupported);
    assert_eq!(raw(&[("content-encoding", "gzip")], fine.as_bytes()).await, unsupported);
    let other = body(json!({"model": "../../etc/passwd"}));
    assert_eq!(raw(&[], other.as_bytes()).await, (404, json!("model_not_found")));
    let hot = body(json!({"temperature": 9}));
    assert_eq!(raw(&[], hot.as_bytes()).await, (400, json!("invalid_value")));
    let image = json!([{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]);
    // Requirement 33.
    let image = body(json!({"messages": image}));
    assert_eq!(raw(&[], image.as_bytes()).await.0, 400);
    let bias = body(json!({"logit_bias": {"70000": 1}}));
    assert_eq!(raw(&[], bias.as_bytes()).await.0, 400);
    let utf8 = send(node.address, request("POST", CHAT, &[], b"\xff\xfe")).await;
    assert_eq!(openai(&utf8).0, 400);
    node.stop().await;
}

#[tokio::test]
async fn a_prompt_over_the_context_is_refused_with_both_numbers() {
    let node = Node::with(Script { context: 64, ..Script::default() }).await;
    let long = node.chat(&"x".repeat(100), json!({})).await;
    assert_eq!(openai(&long), (400, json!("context_length_exceeded")));
    let message = long.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("maximum context length is 64 tokens"), "{message}");
    let asked = node.chat("hi", json!({"max_tokens": 64})).await;
    assert_eq!(openai(&asked), (400, json!("context_length_exceeded")));
    assert_eq!(asked.header("x-should-retry"), "false");
    let words = "x".repeat(100);
    for (path, field, prompt) in [
        (CHAT, "messages", json!([{"role": "user", "content": words}])),
        ("/v1/completions", "prompt", json!(words)),
        ("/v1/responses", "input", json!(words)),
    ] {
        let refused = node.post(path, &json!({"model": "echo", field: prompt})).await;
        assert_eq!(refused.json()["error"]["param"], field, "{}", refused.text());
    }
    node.stop().await;
}

// Requirement 33, robustness 79 to 81: refused where it stands, never fetched, never left out
#[tokio::test]
async fn an_image_is_refused_by_its_place() {
    let node = Node::with(Script::default()).await;
    let url = "data:image/png;base64,AA";
    let text = |kind: &str| json!({"type": kind, "text": "What is this?"});
    let turns = |parts: Value| {
        let system = json!({"role": "system", "content": "S"});
        json!([system, {"role": "user", "content": parts}])
    };
    let source = json!({"type": "base64", "media_type": "image/png", "data": "AA"});
    for (path, field, prompt, place) in [
        (
            CHAT,
            "messages",
            turns(json!([text("text"),
            {"type": "image_url", "image_url": {"url": url}}])),
            "messages[1].content[1]",
        ),
        (
            "/v1/responses",
            "input",
            turns(json!([text("input_text"),
            {"type": "input_image", "image_url": url}])),
            "input[1].content[1]",
        ),
        (
            "/v1/messages",
            "messages",
            turns(json!([text("text"), text("text"),
            {"type": "image", "source": source}])),
            "messages[1].content[2]",
        ),
    ] {
        let asked = json!({"model": "echo", "max_tokens": 5, field: prompt});
        let refused = node.post(path, &asked).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
        let error = &refused.json()["error"];
        let said = error["message"].as_str().expect("words");
        assert!(said.contains("image") && said.contains(place), "{said}");
        assert!(path == "/v1/messages" || error["param"] == place, "{error}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_full_line_is_a_503_before_the_stream_begins() {
    // Requirement 7.
    let script = Script { max_running: 1, max_waiting: 1, step_ms: 20, ..Script::default() };
    let node = Node::with(script).await;
    let mut running = node.stream("a long prompt to echo", json!({})).await;
    running.read_until("user").await;
    let _waiting = node.stream("hi", json!({})).await;
    let full = node.chat("hi", json!({"stream": true})).await;
    assert_eq!(openai(&full), (503, json!("overloaded")));
    assert!(!full.header("retry-after").is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_in_its_dialect() {
    // Requirement 116.
    let node = Node::start(Config { body_limit_mb: 1, ..Config::default() }).await;
    let big = vec![b' '; 3 << 20];
    let answer = send(node.address, request("POST", CHAT, &[], &big)).await;
    assert_eq!(openai(&answer), (413, json!("request_too_large")));
    let answer = send(node.address, request("POST", "/models/load", &[], &big)).await;
    assert_eq!(control(&answer), (413, json!("body_too_large")));
    node.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_json() {
    let node = Node::empty().await;
    let send = async |method, path| send(node.address, request(method, path, &[], b"")).await;
    assert_eq!(openai(&send("GET", "/v1/nothing").await), (404, json!("not_found")));
    assert_eq!(control(&send("GET", "/nothing").await), (404, json!("not_found")));
    for path in ["/%2e%2e%2fetc", "//models", "/models/%00", "/models/%ff"] {
        let answer = send("GET", path).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        assert!(answer.json()["error"].is_object(), "{path}");
    }
    let answer = send("GET", CHAT).await;
    assert_eq!((openai(&answer).0, answer.header("allow")), (405, "POST"));
    let answer = send("DELETE", "/models").await;
    assert_eq!((control(&answer).0, answer.header("allow")), (405, "GET,HEAD"));
    let answer = send("GET", "/models/load").await;
    assert_eq!((control(&answer).0, answer.header("allow")), (405, "POST"));
    assert_eq!(send("HEAD", "/").await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn refused_loads_have_their_codes() {
    let node = Node::empty().await;
    node.add("here", &Script::default());
    let load = async |body: Value| control(&node.post("/models/load", &body).await);
    assert_eq!(load(json!({})).await, (400, json!("bad_request")));
    assert_eq!(load(json!([])).await, (400, json!("bad_request")));
    assert_eq!(load(json!({"model_id": "none"})).await, (422, json!("repo_not_found")));
    assert_eq!(load(json!({"model_id": "../here"})).await, (400, json!("bad_request")));
    // A path that the operator has not allowed is as good as absent.
    let outside = json!({"model_id": "x", "source": "/etc"});
    assert_eq!(load(outside).await, (422, json!("repo_not_found")));
    let harness = json!({"model_id": "here", "harness": "warp"});
    assert_eq!(load(harness).await, (400, json!("bad_request")));
    let gpu = json!({"model_id": "here", "devices": [0]});
    assert_eq!(load(gpu).await, (503, json!("cuda_unavailable")));
    let zero = json!({"model_id": "here", "context": 0});
    assert_eq!(load(zero).await, (400, json!("bad_request")));
    let quant = json!({"model_id": "here", "quant": "Q8_0"});
    assert_eq!(load(quant).await, (422, json!("quant_not_found")));
    let empty = send(node.address, request("POST", "/models/load", &[], b"")).await;
    assert_eq!(control(&empty), (400, json!("bad_request")));
    let unknown = node.post("/models/unload", &json!({"model_id": "none"})).await;
    assert_eq!(control(&unknown), (404, json!("model_not_found")));
    assert_eq!(control(&node.get("/models/none").await).0, 404);
    assert_eq!(control(&node.get("/models/none/endpoint").await).0, 404);
    // Fields of a newer gateway are no error.
    let newer = json!({"model_id": "here", "from_the_future": {"a": 1}});
    assert_eq!(node.post("/models/load", &newer).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn a_key_guards_everything_but_health() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "s3cret\n").unwrap();
    let config = Config { api_key_file: Some(key.path().to_owned()), ..Config::default() };
    let node = Node::start(config).await;
    assert_eq!(node.get("/health").await.status, 200);
    assert_eq!(openai(&node.get("/v1/models").await), (401, json!("invalid_api_key")));
    for path in ["/models", "/discovery", "/metrics", "/version", "/", "/nothing"] {
        assert_eq!(node.get(path).await.status, 401, "{path}");
    }
    let load = node.post("/models/load", &json!({"model_id": MODEL})).await;
    assert_eq!(control(&load), (401, json!("invalid_api_key")));
    for header in [("authorization", "Bearer s3cret"), ("x-api-key", "s3cret")] {
        let answer = send(node.address, request("GET", "/models", &[header], b"")).await;
        assert_eq!(answer.status, 200);
    }
    let wrong = request("GET", "/models", &[("x-api-key", "s3cres")], b"");
    assert_eq!(send(node.address, wrong).await.status, 401);
    node.stop().await;
}

#[tokio::test]
async fn a_sane_request_id_is_echoed_and_another_replaced() {
    let node = Node::empty().await;
    let echoed = async |id: &str| {
        let answer = send(node.address, request("GET", "/", &[("x-request-id", id)], b"")).await;
        answer.header("x-request-id").to_owned()
    };
    assert_eq!(echoed("abc-1.2_3").await, "abc-1.2_3");
    for odd in ["", "a b", "a<b", &"x".repeat(129)] {
        let made = echoed(odd).await;
        assert!(made.starts_with("req_") && made != odd, "{odd}: {made}");
    }
    node.stop().await;
}

#[tokio::test]
async fn discovery_and_version_describe_a_host_without_a_gpu() {
    let node = Node::empty().await;
    let host = node.get("/discovery").await.json();
    assert_eq!(host["devices"], json!([]));
    assert_eq!(host["harnesses"], json!(["native"]));
    assert!(host["cuda_unavailable_reason"].is_string());
    assert!(host["cpu"]["cores"].as_u64().unwrap() >= 1);
    assert!(node.get("/version").await.json()["version"].is_string());
    let metrics = client::get(node.address, "/metrics").await;
    assert!(metrics.text().contains("# TYPE neuron_requests_total counter"));
    node.stop().await;
}
