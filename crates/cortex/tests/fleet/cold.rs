//! Cold models: one load for all who ask, in the order in which they asked, and nobody suffers.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::client::until;
use crate::programs::{Plan, entry, long, payloads, short};

// Requirement 60
#[tokio::test(flavor = "multi_thread")]
async fn many_requests_for_a_cold_model_make_one_load() {
    let fleet = Plan::tight(3, &["alpha", "beta", "gamma"]).start().await;
    let ask = |at: usize| {
        let mut body = short("alpha");
        body["stream"] = at.is_multiple_of(2).into();
        let fleet = &fleet;
        async move { fleet.chat(&body).await }
    };
    let answers = join_all((0..24).map(ask)).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.complete && !answer.text().contains("\"error\""), "{}", answer.text());
    }
    assert_eq!(fleet.metric("cortex_loads_total{end=\"loaded\"}").await, 1.0);
    assert_eq!(fleet.metric("cortex_loads_total{end=\"failed\"}").await, 0.0);
    assert_eq!(fleet.metric("cortex_evictions_total").await, 0.0);
    assert_eq!(fleet.ready_on("alpha").await.len(), 1);
    // The second and the third find the room that is left, and nobody gives way.
    for model in ["beta", "gamma"] {
        assert_eq!(fleet.chat(&short(model)).await.status, 200);
    }
    assert_eq!(fleet.metric("cortex_evictions_total").await, 0.0);
    assert_eq!(fleet.metric("cortex_loads_total{end=\"loaded\"}").await, 3.0);
}

// Requirement 118
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_evicted_is_loaded_again() {
    let mut plan = Plan::tight(1, &["alpha", "beta"]);
    plan.models += "[aliases]\nfirst = \"alpha\"\n";
    let fleet = plan.start().await;
    let list = fleet.get("/v1/models").await;
    let ids: Vec<_> = list["data"].as_array().expect("a list").iter().map(|m| &m["id"]).collect();
    assert_eq!(
        ids,
        ["alpha", "beta", "first"],
        "what can be asked for is listed before it is there"
    );
    assert_eq!(list["data"][0]["loaded"], false);
    for (asked, model, evictions) in
        [("alpha", "alpha", 0.0), ("beta", "beta", 1.0), ("first", "alpha", 2.0)]
    {
        let answer = fleet.chat(&short(asked)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // Requirement 44: the node never sees the alias.
        assert_eq!(answer.json()["model"], model);
        assert_eq!(fleet.metric("cortex_evictions_total").await, evictions);
    }
    let list = fleet.get("/v1/models").await;
    assert_eq!(
        (&list["data"][2]["loaded"], &list["data"][1]["loaded"]),
        (&true.into(), &false.into())
    );
    assert_eq!(list["data"][1]["feasible_on"], json!(["n0"]), "{list}");
    let said = fleet.explain("beta").await;
    let evicted = &said["decisions"][0];
    assert_eq!((&evicted["do"], &evicted["node"]), (&"unload".into(), &"n0".into()), "{said}");
    assert_eq!(evicted["cause"]["room_for"]["model"], "alpha");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_model_stays_and_those_who_wait_are_served_in_their_order() {
    let fleet = Plan::tight(1, &["alpha", "beta", "gamma"]).start().await;
    let mut busy = fleet.open("/v1/chat/completions", &long("alpha")).await;
    busy.until_text("\"content\":\"").await;
    let mut stream = short("beta");
    stream["stream"] = true.into();
    let (mut second, third) = (fleet.open("/v1/chat/completions", &stream).await, async {
        until(async || fleet.explain("beta").await["waiting"] == 1).await;
        fleet.chat(&short("gamma")).await
    });
    let watched = async {
        until(async || fleet.explain("gamma").await["waiting"] == 1).await;
        // The client hears how it stands, in comments.
        second.until_text(": beta waits for a place; this request waits").await;
        let said = fleet.explain("beta").await;
        let verdict = &said["nodes"][0]["verdict"]["no_room"];
        assert_eq!(verdict["evictable_mb"], 0, "{said}");
        assert_eq!(fleet.ready_on("alpha").await, ["n0"]);
        second.read_all().await
    };
    let (whole, second, third) = tokio::join!(busy.read_all(), watched, third);
    assert!(whole.complete && whole.text().ends_with("data: [DONE]\n\n"));
    let last = payloads(&whole.text()).pop().expect("a last chunk");
    assert_eq!(last["timings"]["predicted_n"], 3000, "alpha was never cut: {last}");
    assert!(second.text().ends_with("data: [DONE]\n\n"), "{}", second.text());
    assert_eq!(third.status, 200, "{}", third.text());
    // First beta came, and then gamma in its place.
    until(async || loads(&fleet.log()).len() == 3).await;
    assert_eq!(loads(&fleet.log()), ["alpha", "beta", "gamma"]);
    assert_eq!(fleet.metric("cortex_evictions_total").await, 2.0);
}

fn loads(log: &str) -> Vec<&str> {
    let lines = log.lines().filter(|line| line.contains(" loaded node="));
    lines.filter_map(|line| line.split("model=\"").nth(1)?.split('"').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_the_queue_evicts_nobody() {
    let fleet = Plan::tight(1, &["alpha", "beta", "gamma"]).start().await;
    let mut busy = fleet.open("/v1/chat/completions", &long("alpha")).await;
    busy.until_text("\"content\":\"").await;
    let leaver = fleet.open("/v1/chat/completions", &short("beta")).await;
    until(async || fleet.explain("beta").await["waiting"] == 1).await;
    drop(leaver);
    until(async || fleet.explain("beta").await["waiting"] == 0).await;
    drop(busy);
    // Long enough for alpha to be idle, settled and seen so by several reports.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fleet.metric("cortex_evictions_total").await, 0.0);
    assert_eq!(fleet.ready_on("alpha").await, ["n0"]);
    // The next one who stays gets the place.
    assert_eq!(fleet.chat(&short("gamma")).await.status, 200);
    assert_eq!(fleet.metric("cortex_evictions_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_what_cannot_be_is_told() {
    let mut plan = Plan::tight(1, &["alpha"]);
    plan.gateway = "hold_timeout_secs = 3".to_owned();
    plan.models += &entry("nowhere", "min_devices = 4");
    plan.models += &entry("pinned", "pinned_on = [\"n0\"]");
    let fleet = plan.start().await;
    let answer = fleet.chat(&short("nowhere")).await;
    let code = answer.json()["error"]["code"].clone();
    assert_eq!((answer.status, code), (503, json!("cannot_be_placed")), "{}", answer.text());
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(fleet.chat(&short("stranger")).await.status, 404);

    // A pinned model never leaves, and the deadline is kept.
    assert_eq!(fleet.chat(&short("pinned")).await.status, 200);
    let answer = fleet.chat(&short("alpha")).await;
    let code = answer.json()["error"]["code"].clone();
    assert_eq!((answer.status, code), (503, json!("loading")), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    let mut stream = short("alpha");
    stream["stream"] = true.into();
    let text = fleet.chat(&stream).await.text();
    assert!(text.starts_with(": alpha waits for a place; this request waits 2 s"), "{text}");
    assert!(text.contains("\"code\":\"loading\"") && !text.contains("[DONE]"), "{text}");
    assert_eq!(fleet.metric("cortex_evictions_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn residents_come_by_themselves_and_the_idle_leave() {
    let mut plan = Plan::tight(2, &[]);
    plan.models = entry("home", "") + &entry("guest", "idle_unload_secs = 1");
    plan.models += "[[default]]\nmodel = \"home\"\n";
    let fleet = plan.start().await;
    until(async || fleet.ready_on("home").await.len() == 1).await;
    assert_eq!(fleet.chat(&short("guest")).await.status, 200);
    until(async || fleet.ready_on("guest").await.is_empty()).await;
    assert_eq!(fleet.ready_on("home").await.len(), 1);
    let said = fleet.explain("guest").await;
    assert!(said["decisions"][0]["cause"]["idle"]["idle_ms"].as_u64() >= Some(1000), "{said}");
    assert_eq!(fleet.metric("cortex_evictions_total").await, 0.0);
}
