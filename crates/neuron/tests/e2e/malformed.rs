//! Bodies that are no JSON, on every route that takes one.

use testkit::{Script, must_fail_bodies};

use crate::client::{request, send};
use crate::node::Node;

const ROUTES: [&str; 9] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
    "/models/load",
];

// robustness 21 to 25 and requirement 3
#[tokio::test]
async fn what_is_no_json_is_a_400_in_the_shape_of_its_route() {
    let node = Node::with(Script::default()).await;
    for path in ROUTES {
        for (name, body) in must_fail_bodies() {
            // By itself, and where nobody would look at it.
            let inside = [&b"{\"model\": \"echo\", \"unknown\": "[..], &body, b"}"].concat();
            for body in [body, inside] {
                let answer = send(node.address, request("POST", path, &[], &body)).await;
                assert_eq!(answer.status, 400, "{name} on {path}: {}", answer.text());
                let told = answer.json();
                let error = &told["error"];
                assert!(error["message"].is_string(), "{name} on {path}: {told}");
                let is_anthropic = path.starts_with("/v1/messages");
                assert_eq!(told["type"] == "error", is_anthropic, "{name} on {path}: {told}");
                let keys = ["message", "type", "param", "code"];
                let is_openai = keys.iter().all(|key| error.get(key).is_some());
                assert_eq!(is_openai, !is_anthropic && path != "/models/load", "{path}: {told}");
            }
        }
    }
    node.settled().await;
    node.stop().await;
}

/// What `curl -d` says of a body; a page in a browser could say the same to any address.
#[tokio::test]
async fn a_body_of_curl_is_json_and_one_from_a_page_is_not() {
    let node = Node::with(Script::default()).await;
    let body = br#"{"model": "echo", "prompt": "hi", "max_tokens": 1}"#;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let post = async |headers: &[(&str, &str)]| {
        send(node.address, request("POST", "/v1/completions", headers, body)).await.status.as_u16()
    };
    assert_eq!(post(&[form]).await, 200);
    assert_eq!(post(&[]).await, 200);
    assert_eq!(post(&[form, ("origin", "https://a.example")]).await, 415);
    assert_eq!(post(&[("content-type", "text/plain")]).await, 415);
    node.stop().await;
}
