//! A conversation goes back to the node that computed its beginning.

use std::time::Instant;

use serde_json::{Value, json};

use crate::client::until;
use crate::programs::{Fleet, Plan, entry, long};

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
    until(async || node_of(&fleet, &went[1].0).is_some()).await;
    assert_eq!(node_of(&fleet, &went[1].0).as_deref(), Some("n1"), "{}", fleet.log());
    assert!(went[1].1 > 500, "{went:?}: the prefix cache is what it is for");
}

/// The node that answered a request, once the log has its line.
fn node_of(fleet: &Fleet, id: &str) -> Option<String> {
    let log = fleet.log();
    let line = log.lines().find(|line| line.contains(id) && line.contains("status=200"))?;
    Some(line.split("node=\"").nth(1)?.split('"').next()?.to_owned())
}

/// No report has told of the first turn yet: the gateway knows what it sent where.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_turn_at_once_finds_the_node_of_the_first() {
    let mut plan = Plan::tight(2, &[]);
    plan.gateway = "poll_interval_ms = 8000".to_owned();
    plan.models = entry("twin", "") + "[[default]]\nmodel = \"twin\"\nreplicas = 2\n";
    let fleet = plan.start().await;
    until(async || fleet.ready_on("twin").await.len() == 2).await;
    let question = |word: &str| json!({"role": "user", "content": word.repeat(400)});
    let turn = |messages: &Value| {
        let model = "twin";
        json!({"model": model, "messages": messages, "max_tokens": 24, "temperature": 0})
    };
    // Two at once are on two nodes.
    let firsts = [json!([question("What? ")]), json!([question("Who? ")])];
    let bodies = firsts.each_ref().map(turn);
    let (one, other) = tokio::join!(fleet.chat(&bodies[0]), fleet.chat(&bodies[1]));
    let mut stayed = Vec::new();
    for (mut messages, first) in firsts.into_iter().zip([one, other]) {
        let said = first.json()["choices"][0]["message"]["content"].clone();
        let all = messages.as_array_mut().expect("a list");
        all.push(json!({"role": "assistant", "content": said}));
        all.push(json!({"role": "user", "content": "And then?"}));
        let second = fleet.chat(&turn(&messages)).await;
        let ids = [&first, &second].map(|it| it.header("x-request-id").unwrap_or("").to_owned());
        until(async || ids.iter().all(|id| node_of(&fleet, id).is_some())).await;
        let nodes = ids.map(|id| node_of(&fleet, &id).expect("just seen"));
        assert_eq!(nodes[0], nodes[1], "{}", fleet.log());
        stayed.push(nodes[0].clone());
    }
    assert_ne!(stayed[0], stayed[1], "{}", fleet.log());
}
