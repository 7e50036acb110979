//! Bodies that are no JSON, on every route that takes one.

use testkit::heads::{head_cases, smuggled, status_of, told};
use testkit::{JSON_ROUTES, Script, assert_refusal, must_fail_requests};

use crate::client::{request, send};
use crate::node::Node;

// robustness 21 to 25 and requirement 3
#[tokio::test]
async fn what_is_no_json_is_a_400_in_the_shape_of_its_route() {
    let node = Node::with(Script::default()).await;
    let bodies = must_fail_requests("echo");
    for (name, body) in &bodies {
        for path in JSON_ROUTES {
            let answer = send(node.address, request("POST", path, &[], body)).await;
            assert_eq!(answer.status, 400, "{name} on {path}: {}", answer.text());
            assert_refusal(path, name, &answer.json());
        }
        let answer = send(node.address, request("POST", "/models/load", &[], body)).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert!(answer.json()["error"]["code"].is_string(), "{name}: {}", answer.text());
    }
    node.settled().await;
    node.stop().await;
}

// robustness 3 to 20
#[tokio::test]
async fn broken_heads_and_framings_are_refused_and_none_ends_the_node() {
    let node = Node::with(Script::default()).await;
    for case in head_cases("echo") {
        let told = told(node.address, &case.bytes).await;
        let is_right = case.statuses.contains(&status_of(&told));
        assert!(is_right, "{}: {}", case.name, told.lines().next().unwrap_or("nothing"));
    }
    // A length beside chunks is left out of account, so that no two readers disagree.
    for bytes in smuggled("echo") {
        let told = told(node.address, &bytes).await;
        assert_eq!((status_of(&told), told.matches("HTTP/1.1 ").count()), (200, 1), "{told}");
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
