use std::time::{Duration, Instant};

use control::{ActivationState, LoadRequest, ModelStatus};
use neuron::config::Config;
use serde_json::json;
use testkit::{FailedLoad, Script};

use crate::client::payloads;
use crate::node::{MODEL, Node, is_alive, says, signal, wait_for};

#[tokio::test]
async fn a_killed_engine_is_told_to_its_clients_and_comes_back_by_itself() {
    // Requirements 121 and 122.
    let node = Node::with(says("la ", 5)).await;
    let pid = node.report(MODEL).await.pid.unwrap();
    let mut stream = node.stream("go", json!({})).await;
    stream.read_until("la").await;
    let whole = node.chat("go", json!({}));
    let kill = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        signal(pid, "-9");
    };
    let (whole, ()) = tokio::join!(whole, kill);
    assert_eq!(whole.status, 503);
    assert_eq!(whole.json()["error"]["code"], "engine_failed");
    assert!(!whole.header("retry-after").is_empty());
    let sse = stream.rest().await;
    let last = payloads(&sse).pop().unwrap();
    assert_eq!(last["error"]["code"], "engine_failed", "{sse}");
    assert!(!sse.contains("[DONE]") && sse.ends_with("\n\n"), "{sse}");

    let refused = node.chat("go", json!({})).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(refused.header("x-should-retry"), "true");
    wait_for("ready again", async || node.chat("go", json!({"max_tokens": 1})).await.status == 200)
        .await;
    let report = node.report(MODEL).await;
    assert!(report.pid.is_some_and(|new| new != pid));
    assert_eq!(node.model_health().await.restarts, 1);
    assert!(!is_alive(pid));
    node.stop().await;
}

#[tokio::test]
async fn an_engine_that_dies_again_and_again_is_given_up_until_it_is_loaded_again() {
    let node = Node::with(Script { fault_after_steps: Some(0), ..Script::default() }).await;
    for _ in 0..3 {
        wait_for("a verdict", async || {
            let status = node.chat("hi", json!({})).await.json();
            let failed = node.report(MODEL).await.status == ModelStatus::Failed;
            failed || status["error"]["message"].as_str().unwrap().contains("died while")
        })
        .await;
    }
    wait_for("failed", async || node.report(MODEL).await.status == ModelStatus::Failed).await;
    let error = node.report(MODEL).await.error.unwrap();
    assert!(error.contains("3 times") && error.contains("the script says so"), "{error}");
    assert_eq!(node.loads(MODEL).len(), 3);
    node.add(MODEL, &Script::default());
    assert_eq!(node.load(MODEL).await.status, 200);
    assert_eq!(node.chat("hi", json!({})).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn an_engine_that_hangs_is_killed_and_comes_back() {
    // Requirement 82.
    let mut config = Config::default();
    config.harness.native.step_timeout_secs = 1;
    let node = Node::start(config).await;
    node.add(MODEL, &Script { hang_after_steps: Some(3), ..says("la ", 1) });
    assert_eq!(node.load(MODEL).await.status, 200);
    let sse = node.stream("go", json!({})).await.rest().await;
    assert_eq!(payloads(&sse).last().unwrap()["error"]["code"], "engine_failed");
    wait_for("a new child", async || node.report(MODEL).await.status == ModelStatus::Ready).await;
    let loads = node.loads(MODEL);
    assert_eq!(loads.len(), 2);
    assert!(!is_alive(loads[0]));
    node.stop().await;
}

#[tokio::test]
async fn a_load_that_makes_no_progress_is_not_waited_for_for_ever() {
    let mut config = Config::default();
    config.harness.native.step_timeout_secs = 1;
    let node = Node::start(config).await;
    // It tells of its progress every two minutes.
    node.add(MODEL, &Script { load_ms: 600_000, ..Script::default() });
    let answer = node.load(MODEL).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "engine_failed");
    let message = answer.json()["error"]["message"].to_string();
    assert!(message.contains("the load made no progress for 1 s"), "{message}");
    assert!(node.loads(MODEL).into_iter().all(|pid| !is_alive(pid)));
    node.add(MODEL, &Script::default());
    assert_eq!(node.load(MODEL).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn one_load_serves_all_who_ask_for_it() {
    // Requirement 60.
    let node = Node::empty().await;
    node.add(MODEL, &Script { load_ms: 400, ..Script::default() });
    let started = node.post("/models/load", &json!({"model_id": MODEL, "wait": false})).await;
    assert_eq!((started.status.as_u16(), started.json()), (202, json!({"status": "loading"})));
    let report = node.report(MODEL).await;
    assert_eq!((report.status, report.endpoint), (ModelStatus::Loading, None));
    let refused = node.chat("hi", json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "2"));
    assert_eq!(refused.json()["error"]["code"], "loading");

    let (first, second) = tokio::join!(node.load(MODEL), node.load(MODEL));
    for answer in [&first, &second] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["status"], "loaded");
        assert_eq!(answer.json()["plan"]["context"], 4096);
    }
    assert_eq!(node.loads(MODEL).len(), 1);
    assert_eq!(node.load(MODEL).await.status, 200, "a loaded model is loaded at once");
    assert_eq!(node.loads(MODEL).len(), 1);

    let conflict = node.post("/models/load", &json!({"model_id": MODEL, "context": 99})).await;
    assert_eq!(conflict.status, 409);
    assert!(conflict.json()["error"]["message"].as_str().unwrap().contains("context"));
    node.stop().await;
}

#[tokio::test]
async fn a_load_goes_on_when_its_caller_leaves() {
    // Requirement 109.
    let node = Node::empty().await;
    node.add(MODEL, &Script { load_ms: 300, ..Script::default() });
    let load = node.load(MODEL);
    assert!(tokio::time::timeout(Duration::from_millis(100), load).await.is_err());
    wait_for("loaded", async || node.chat("hi", json!({})).await.status == 200).await;
    node.stop().await;
}

#[tokio::test]
async fn an_unload_gives_the_process_back() {
    let node = Node::with(Script::default()).await;
    let pid = node.report(MODEL).await.pid.unwrap();
    let endpoint = node.get("/models/echo/endpoint").await;
    assert_eq!(endpoint.json(), json!({"url": "http://node:1"}));
    let answer = node.post("/models/unload", &json!({"model_id": MODEL})).await;
    assert_eq!(answer.json(), json!({"status": "unloaded", "freed_mb": 9}));
    assert!(!is_alive(pid), "answered before the memory was back");
    assert_eq!(node.get("/models").await.json(), json!([]));
    assert_eq!(node.get("/models/echo/endpoint").await.status, 404);
    let again = node.post("/models/unload", &json!({"model_id": MODEL})).await;
    assert_eq!(again.status, 404);
    assert_eq!(again.json()["error"]["code"], "model_not_found");
    assert_eq!(node.chat("hi", json!({})).await.json()["error"]["code"], "model_not_found");
    assert_eq!(node.load(MODEL).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn an_unload_during_the_load_undoes_it_at_once() {
    let node = Node::empty().await;
    node.add(MODEL, &Script { load_ms: 60_000, ..Script::default() });
    let load = node.load(MODEL);
    let unload = async {
        wait_for("a child", async || !node.loads(MODEL).is_empty()).await;
        node.post("/models/unload", &json!({"model_id": MODEL})).await
    };
    let began = Instant::now();
    let (loaded, unloaded) = tokio::join!(load, unload);
    assert_eq!((loaded.status.as_u16(), unloaded.status.as_u16()), (409, 200));
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!(!is_alive(node.loads(MODEL)[0]));
    node.stop().await;
}

#[tokio::test]
async fn an_unload_lets_answers_finish_or_cuts_them_at_its_limit() {
    let node = Node::with(says("la ", 20)).await;
    let mut ends = node.stream("go", json!({"max_tokens": 20})).await;
    ends.read_until("la").await;
    let patient = json!({"model_id": MODEL, "drain_secs": 60});
    let drain = node.post("/models/unload", &patient);
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        node.chat("hi", json!({})).await
    };
    let (unloaded, late, sse) = tokio::join!(drain, late, ends.rest());
    assert_eq!(unloaded.status, 200);
    assert_eq!((late.status.as_u16(), &late.json()["error"]["code"]), (503, &json!("draining")));
    assert!(sse.ends_with("data: [DONE]\n\n"));

    assert_eq!(node.load(MODEL).await.status, 200);
    let mut endless = node.stream("go", json!({})).await;
    endless.read_until("la").await;
    let began = Instant::now();
    let unloaded = node.post("/models/unload", &json!({"model_id": MODEL, "drain_secs": 0})).await;
    assert_eq!(unloaded.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5));
    let sse = endless.rest().await;
    assert_eq!(payloads(&sse).last().unwrap()["error"]["code"], "draining");
    node.stop().await;
}

#[tokio::test]
async fn loads_that_fail_say_why() {
    let node = Node::empty().await;
    let message = "needs 90 MiB, 10 MiB are free".to_owned();
    let failed = FailedLoad { code: "does_not_fit".into(), message: message.clone() };
    node.add("big", &Script { fail_load: Some(failed), ..Script::default() });
    let answer = node.load("big").await;
    assert_eq!(answer.status, 422);
    let error = json!({"code": "does_not_fit", "message": message, "model_id": "big"});
    assert_eq!(answer.json(), json!({"error": error}));
    assert_eq!(node.report("big").await.status, ModelStatus::Failed);
    assert_eq!(node.report("big").await.error, Some(message));

    node.add("dies", &Script { die_in_load: true, ..Script::default() });
    let answer = node.load("dies").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"], "engine_failed");
    assert_eq!(node.loads("dies").len(), 3);

    node.add("blank", &Script::default());
    std::fs::remove_file(node.models.path().join("blank/tokenizer.json")).unwrap();
    let answer = node.load("blank").await;
    assert_eq!(answer.json()["error"]["code"], "bad_model_file");
    assert_eq!(node.loads("blank").len(), 0, "no process for a model without a tokenizer");
    assert_eq!(node.health().await.uptime_secs / 3600, 0);
    node.stop().await;
}

#[tokio::test]
async fn configured_models_load_at_the_start_and_one_failure_stops_no_other() {
    // Requirements 42 and 71.
    let dir = tempfile::tempdir().unwrap();
    testkit::write_model_dir(&dir.path().join("good")).unwrap();
    let source = |name: &str| Some(dir.path().join(name).display().to_string());
    let model = |id: &str, name| LoadRequest {
        model_id: id.into(),
        source: source(name),
        ..LoadRequest::default()
    };
    let config = Config {
        default_models: vec![model("a/gone", "gone"), model(MODEL, "good")],
        ..Config::default()
    };
    let node = Node::start(config).await;
    wait_for("activation", async || {
        let activation = node.health().await.activation;
        activation.state == ActivationState::Done
            && activation.completed == [MODEL]
            && node.get("/models/a%2Fgone").await.status == 200
    })
    .await;
    assert_eq!(node.chat("hi", json!({})).await.status, 200);
    // Unloaded it stays known, and its id alone brings it back.
    node.post("/models/unload", &json!({"model_id": MODEL})).await;
    assert_eq!(node.report(MODEL).await.status, ModelStatus::Absent);
    assert_eq!(node.load(MODEL).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn the_end_of_the_daemon_is_the_end_of_its_children() {
    // Requirement 72.
    let node = Node::with(says("la ", 10)).await;
    let pid = node.report(MODEL).await.pid.unwrap();
    let mut stream = node.stream("go", json!({"max_tokens": 30})).await;
    stream.read_until("la").await;
    let (sse, ()) = tokio::join!(stream.rest(), node.stop());
    assert!(sse.ends_with("data: [DONE]\n\n"), "a running answer was cut: {sse}");
    assert!(!is_alive(pid));
}
