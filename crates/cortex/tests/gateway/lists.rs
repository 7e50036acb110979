//! The lists of models, and what operators see.

use control::ModelStatus::{Loading, Ready};
use cortex::Operator;
use testkit::fake_neuron::FakeNeuron;

use crate::client::{TestGateway, until};

#[tokio::test]
async fn models_are_merged_over_nodes_and_sorted() {
    let one = FakeNeuron::start(&[("zeta", Ready), ("org/alpha 2", Loading)]).await;
    let two = FakeNeuron::start(&[("org/alpha 2", Ready)]).await;
    let gateway = TestGateway::over(&[&one, &two]).await;
    let list = gateway.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    let ids: Vec<_> = list["data"].as_array().expect("a list").iter().map(|m| &m["id"]).collect();
    assert_eq!(ids, ["org/alpha 2", "zeta"]);

    for path in ["/v1/models/org/alpha%202", "/v1/models/org%2Falpha%202"] {
        let model = gateway.get(path).await.json();
        assert_eq!(model, list["data"][0], "{path}");
        assert_eq!((&model["object"], &model["loaded"]), (&"model".into(), &true.into()));
        assert!(model["created"].as_u64().is_some_and(|at| at > 1_700_000_000));
        assert!(model["owned_by"].is_string());
        assert_eq!(model["locations"][0], serde_json::json!({"node":"n0","status":"loading"}));
        assert_eq!(model["locations"][1], serde_json::json!({"node":"n1","status":"ready"}));
        // Requirement 26
        assert_eq!(model["limit"]["context"], 4096);
        assert_eq!(model["max_model_len"], 4096);
        assert_eq!(model["capabilities"], serde_json::json!(["chat"]));
    }
}

#[tokio::test]
async fn a_model_that_a_node_lets_go_is_unknown_and_a_new_one_is_seen() {
    let neuron = FakeNeuron::start(&[("old", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    neuron.hold(&[("new", Ready)]);
    until(async || gateway.get("/v1/models/new").await.status == 200).await;
    assert_eq!(gateway.get("/v1/models/old").await.status, 404);
}

#[tokio::test]
async fn the_commands_print_tables_and_json() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let (clients, operators) =
        (format!("http://{}/", gateway.addr), format!("http://{}", gateway.metrics_addr));
    let asks = |url: &str, json| Operator::new(url, None, json).expect("it can be asked");

    let mut out = Vec::new();
    asks(&operators, false).status(&mut out).await.expect("it answers");
    let text = String::from_utf8(out).expect("text");
    for wanted in ["1 node\n", "NODE  STATUS", "n0    ok", "MODEL  NODE", "m      n0    ready"] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    let mut out = Vec::new();
    asks(&clients, false).models(&mut out).await.expect("it answers");
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("m      yes     4096     chat          n0 (ready)"), "{text}");

    let mut out = Vec::new();
    asks(&operators, true).status(&mut out).await.expect("it answers");
    let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(json["nodes"][0]["models"][0]["id"], "m");

    let rate = json["nodes"][0]["models"][0]["prefix_hit_rate"].as_f64();
    assert_eq!(rate, Some(0.75));
    let metrics = gateway.metrics().await;
    for (name, value) in [("looked_up", 40), ("hit", 30)] {
        let labels = "{node=\"n0\",model=\"m\"}";
        let line = format!("cortex_node_prefix_{name}_tokens_total{labels} {value}\n");
        assert!(metrics.contains(&line), "{line:?} is not in\n{metrics}");
    }

    // What operators see is not on the clients' port, which other hosts may reach.
    assert_eq!(gateway.get("/admin/fleet").await.status, 404);
    let error = asks("http://127.0.0.1:1", false).status(&mut Vec::new()).await;
    let said = error.expect_err("nothing listens there").to_string();
    assert!(said.contains("http://127.0.0.1:1/admin/fleet does not answer"), "{said}");
}
