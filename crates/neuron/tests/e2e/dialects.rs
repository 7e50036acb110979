//! The other dialects, over the same engines as the chat's.

use serde_json::{Value, json};
use testkit::Script;

use crate::client::{self, Answer, Opened, request, send};
use crate::node::{MODEL, Node, says, signal, wait_for};

const PATHS: [&str; 3] = ["/v1/completions", "/v1/messages", "/v1/responses"];

/// A request for at most five tokens after `hi`.
fn body(path: &str, more: Value) -> Value {
    let mut body = match path {
        "/v1/completions" => json!({"prompt": "hi", "max_tokens": 5}),
        "/v1/responses" => json!({"input": "hi", "max_output_tokens": 5}),
        _ => json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}),
    };
    body["model"] = MODEL.into();
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

async fn open(node: &Node, path: &str, more: Value) -> Opened {
    let mut body = body(path, more);
    body["stream"] = true.into();
    let request = request("POST", path, &[], body.to_string().as_bytes());
    client::open(node.address, request).await
}

/// The words of a whole answer.
fn words(path: &str, body: &Value) -> String {
    let words = match path {
        "/v1/completions" => &body["choices"][0]["text"],
        "/v1/responses" => &body["output"][0]["content"][0]["text"],
        _ => &body["content"][0]["text"],
    };
    words.as_str().unwrap_or_else(|| panic!("no words in {body}")).to_owned()
}

/// The words of a stream.
fn streamed(path: &str, sse: &str) -> String {
    let payloads = sse.lines().filter_map(|line| line.strip_prefix("data: "));
    let payloads = payloads.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let word = |payload: Value| {
        let word = match path {
            "/v1/completions" => &payload["choices"][0]["text"],
            "/v1/responses" => &payload["delta"],
            _ => &payload["delta"]["text"],
        };
        word.as_str().map(str::to_owned)
    };
    payloads.filter_map(word).collect()
}

#[tokio::test]
async fn every_dialect_answers_whole_and_as_a_stream_with_the_same_words() {
    // Requirement 110.
    let node = Node::with(says("one two three ", 1)).await;
    let ends = [
        ("/v1/completions", "data: [DONE]\n\n"),
        ("/v1/messages", "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
        ("/v1/responses", "}\n\n"),
    ];
    for (path, end) in ends {
        let whole = node.post(path, &body(path, json!({}))).await;
        assert_eq!((whole.status.as_u16(), words(path, &whole.json()).as_str()), (200, "one t"));
        assert_eq!(whole.header("content-type"), "application/json");
        let stream = open(&node, path, json!({})).await;
        assert_eq!(
            (stream.status.as_u16(), &stream.headers["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        let sse = stream.rest().await;
        assert_eq!(streamed(path, &sse), "one t", "{sse}");
        assert!(sse.ends_with(end), "{sse}");
    }
    let (path, completions) = (PATHS[0], node.post(PATHS[0], &body(PATHS[0], json!({}))).await);
    assert_eq!(completions.json()["choices"][0]["finish_reason"], "length", "{path}");
    let message = node.post("/v1/messages", &body("/v1/messages", json!({}))).await.json();
    assert_eq!(message["stop_reason"], "max_tokens");
    assert_eq!(
        (message["usage"]["output_tokens"].as_u64(), &message["model"]),
        (Some(5), &json!(MODEL))
    );
    let response = node.post("/v1/responses", &body("/v1/responses", json!({}))).await.json();
    assert_eq!(response["status"], "incomplete");
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    node.settled().await;
    node.stop().await;
}

#[tokio::test]
async fn a_message_says_which_text_stopped_it() {
    let node = Node::with(says("one two three ", 1)).await;
    let stop = json!({"stop_sequences": ["three", "never"], "max_tokens": 100});
    let message = node.post("/v1/messages", &body("/v1/messages", stop)).await.json();
    assert_eq!(words("/v1/messages", &message), "one two ");
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("three"))
    );
    node.settled().await;
    node.stop().await;
}

#[tokio::test]
async fn a_large_limit_is_cut_to_the_context_where_the_dialect_says_so() {
    // Agents ask for 32,000 tokens whatever the model is.
    let node = Node::with(Script { context: 64, ..says("word ", 0) }).await;
    for (path, limit) in [("/v1/messages", "max_tokens"), ("/v1/responses", "max_output_tokens")] {
        let answer = node.post(path, &body(path, json!({ limit: 32_000 }))).await.json();
        let usage = &answer["usage"];
        let total =
            usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
        assert_eq!(total, 64, "{answer}");
    }
    let refused = node.post(PATHS[0], &body(PATHS[0], json!({"max_tokens": 32_000}))).await;
    assert_eq!(refused.json()["error"]["code"], "context_length_exceeded");
    let long = json!({"messages": [{"role": "user", "content": "x".repeat(100)}]});
    let refused = node.post("/v1/messages", &body("/v1/messages", long)).await;
    // Requirement 4.
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("prompt is too long"), "{message}");
    node.stop().await;
}

/// Status and type of a refusal in Anthropic's envelope.
fn anthropic(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(body["request_id"].as_str(), Some(answer.header("request-id")), "{body}");
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    (answer.status.as_u16(), body["error"]["type"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn refusals_are_told_in_the_dialect_of_their_path() {
    let node = Node::with(Script::default()).await;
    let message = async |more| anthropic(&node.post(PATHS[1], &body(PATHS[1], more)).await);
    let invalid = (400, "invalid_request_error".to_owned());
    assert_eq!(message(json!({"max_tokens": null})).await, invalid);
    assert_eq!(message(json!({"temperature": 9})).await, invalid);
    assert_eq!(message(json!({"model": "none"})).await, (404, "not_found_error".to_owned()));
    let raw = async |method, path, body: &[u8]| {
        anthropic(&send(node.address, request(method, path, &[], body)).await)
    };
    assert_eq!(raw("POST", PATHS[1], b"{").await, invalid);
    assert_eq!(raw("GET", PATHS[1], b"").await, (405, invalid.1.clone()));
    assert_eq!(raw("GET", "/v1/messages/batches", b"").await, (404, "not_found_error".to_owned()));
    assert_eq!(raw("POST", "/v1/messages/count_tokens", b"[]").await, invalid);

    let earlier = json!({"previous_response_id": "resp_1"});
    let answer = node.post(PATHS[2], &body(PATHS[2], earlier)).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["code"], "previous_response_not_found");
    let echo = node.post(PATHS[0], &body(PATHS[0], json!({"echo": true}))).await;
    assert_eq!((echo.status.as_u16(), &echo.json()["error"]["param"]), (400, &json!("echo")));
    let vocabulary = node.post(PATHS[0], &body(PATHS[0], json!({"prompt": [70_000]}))).await;
    assert_eq!(vocabulary.json()["error"]["param"], "prompt");
    node.stop().await;
}

#[tokio::test]
async fn prompts_are_counted_and_tokenised_without_an_answer() {
    let node = Node::with(Script::default()).await;
    let asked = json!({"system": "Be brief.", "max_tokens": 1});
    let counted = node.post("/v1/messages/count_tokens", &body(PATHS[1], asked.clone())).await;
    let told = node.post(PATHS[1], &body(PATHS[1], asked)).await;
    assert_eq!(counted.json(), json!({"input_tokens": told.json()["usage"]["input_tokens"]}));

    let text = "café <|im_end|>";
    let asked = json!({"model": MODEL, "prompt": text, "return_token_strs": true});
    let tokens = node.post("/tokenize", &asked).await.json();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    assert_eq!((&tokens["max_model_len"], &tokens["token_strs"][0]), (&json!(4096), &json!("c")));
    let asked = json!({"model": MODEL, "tokens": tokens["tokens"]});
    assert_eq!(node.post("/detokenize", &asked).await.json()["prompt"], text);
    let chat = json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]});
    let chat = node.post("/tokenize", &chat).await.json();
    let usage = node.chat("hi", json!({"max_tokens": 1})).await.json()["usage"].clone();
    assert_eq!(chat["count"], usage["prompt_tokens"]);
    let unknown = node.post("/detokenize", &json!({"model": MODEL, "tokens": [70_000]})).await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["param"]),
        (400, &json!("tokens"))
    );
    assert_eq!(send(node.address, request("GET", "/tokenize", &[], b"")).await.status, 405);
    node.stop().await;
}

#[tokio::test]
async fn models_are_listed_in_the_shape_of_who_asks() {
    let node = Node::with(Script::default()).await;
    let version = [("anthropic-version", "2023-06-01")];
    let get = async |path| send(node.address, request("GET", path, &version, b"")).await;
    let list = get("/v1/models").await.json();
    assert_eq!((&list["has_more"], &list["first_id"]), (&json!(false), &json!(MODEL)));
    assert_eq!(
        (&list["data"][0]["type"], &list["data"][0]["id"]),
        (&json!("model"), &json!(MODEL))
    );
    let path = format!("/v1/models/{MODEL}");
    assert_eq!(get(&path).await.json()["display_name"], MODEL);
    assert_eq!(anthropic(&get("/v1/models/none").await).0, 404);
    assert_eq!(node.get("/v1/models").await.json()["object"], "list");
    node.stop().await;
}

#[tokio::test]
async fn a_killed_engine_ends_every_dialects_stream_with_its_error() {
    // Requirements 121 and 122.
    for (path, word, error) in [
        ("/v1/chat/completions", "\"content\":\"w\"", "data: {\"error\":"),
        ("/v1/completions", "\"text\":\"w\"", "data: {\"error\":"),
        ("/v1/messages", "text_delta", "event: error\ndata: {\"type\":\"error\""),
        ("/v1/responses", "output_text.delta", "event: response.failed\n"),
    ] {
        let node = Node::with(says("word ", 20)).await;
        let limit = if path == "/v1/responses" { "max_output_tokens" } else { "max_tokens" };
        let mut stream = open(&node, path, json!({ limit: 3_000 })).await;
        stream.read_until(word).await;
        let pid = node.report(MODEL).await.pid.unwrap();
        signal(pid, "-KILL");
        let sse = stream.rest().await;
        let last = sse.split_terminator("\n\n").last().unwrap();
        assert!(last.starts_with(error), "{last}");
        assert!(!sse.contains("[DONE]") && !sse.contains("message_stop"));
        wait_for("another engine", async || {
            let report = node.report(MODEL).await;
            report.pid.is_some_and(|next| next != pid)
                && report.status == control::ModelStatus::Ready
        })
        .await;
        node.stop().await;
    }
}

/// A gateway has to know what a stream uses, also where its client has not asked for it.
#[tokio::test]
async fn a_stream_tells_a_gateway_what_it_uses_in_every_dialect() {
    // Requirement 113.
    let node = Node::with(says("one two three ", 1)).await;
    for dialect in wire::Dialect::ALL {
        let path = dialect.path();
        let mut body = match dialect {
            wire::Dialect::OpenaiChat => {
                json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5})
            }
            _ => body(path, json!({})),
        };
        (body["model"], body["stream"]) = (MODEL.into(), true.into());
        let told = async |headers: &[(&str, &str)]| {
            let request = request("POST", path, headers, body.to_string().as_bytes());
            client::open(node.address, request).await.rest().await
        };
        let stream = told(&[(control::USAGE_HEADER, "1")]).await;
        let mut tally = wire::Tally::new(dialect, true);
        tally.push(stream.as_bytes());
        let usage = tally.usage().unwrap_or_else(|| panic!("{path} tells nothing: {stream}"));
        assert_eq!(usage.completion_tokens, 5, "{path}: {stream}");
        assert!(usage.prompt_tokens > 0, "{path}: {stream}");
        let first = stream.lines().next().unwrap_or_default();
        assert!(first.starts_with(": usage prompt="), "{path} begins with {first}");
        assert!(!told(&[]).await.contains(": usage"), "{path}: others are not told");
    }
}
