//! A conversation goes back to the node that computed its beginning.

use std::time::Instant;

use serde_json::{Value, json};

use crate::client::until;
use crate::programs::{Plan, entry, long};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_turn_finds_the_node_of_the_first() {
    let mut plan = Plan::tight(2, &[]);
    plan.models = entry("twin", "") + "[[default]]\nmodel = \"twin\"\nreplicas = 2\n";
    let fleet = plan.start().await;
    until(async || fleet.ready_on("twin").await.len() == 2).await;
    // The first node has something to do, so that the conversation begins on the second one.
    let mut busy = fleet.open("/v1/chat/completions", &long("twin")).await;
    busy.until_text("\"content\":\"").await;
    assert_eq!(fleet.fleet().await["nodes"][0]["in_flight"], 1);
    let first = json!({"role": "user", "content": "What is a neuron? ".repeat(150)});
    let turn = |messages: Value| {
        let model = "twin";
        json!({"model": model, "messages": messages, "max_tokens": 4, "temperature": 0})
    };
    let answer = fleet.chat(&turn(json!([first]))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ended = Instant::now();
    drop(busy);
    // Once the reports tell of it and both are idle, a stranger goes to the first node, and the
    // second turn back to the second.
    until(async || {
        let replicas = fleet.explain("twin").await["replicas"].clone();
        replicas.as_array().is_some_and(|all| all.iter().all(|it| it["score"]["load"] == 0))
    })
    .await;
    until(async || {
        let seen_ms_ago = fleet.fleet().await["nodes"][1]["seen_ms_ago"].as_u64();
        seen_ms_ago.is_some_and(|ago| u128::from(ago) < ended.elapsed().as_millis())
    })
    .await;
    let mut went = Vec::new();
    let other = json!([{"role": "user", "content": "Who?"}]);
    let said = answer.json()["choices"][0]["message"]["content"].clone();
    let second = json!([
        first,
        {"role": "assistant", "content": said},
        {"role": "user", "content": "And then?"},
    ]);
    for messages in [other, second] {
        let answer = fleet.chat(&turn(messages)).await;
        let usage = answer.json()["usage"].clone();
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
        went.push((answer.header("x-request-id").unwrap_or_default().to_owned(), cached));
    }
    let of = |id: &str| {
        let log = fleet.log();
        let line = log.lines().find(|line| line.contains(id) && line.contains("status=200"))?;
        Some(line.split("node=\"").nth(1)?.split('"').next()?.to_owned())
    };
    until(async || of(&went[1].0).is_some()).await;
    assert_eq!(of(&went[1].0).as_deref(), Some("n1"), "{}", fleet.log());
    assert!(went[1].1 > 500, "{went:?}: the prefix cache is what it is for");
}
