//! What operators do to a fleet that runs: with the commands, as they would.

use std::process::{Command, Output};

use serde_json::json;

use crate::client::until;
use crate::programs::{Fleet, Plan, entry, long, short};

async fn cortex(fleet: &Fleet, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cortex"));
    let url = format!("http://{}", fleet.operators);
    command.args(arguments).args(["--url", &url]);
    let run = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } = run.await.expect("no panic").expect("it runs");
    let text = [stdout, stderr].concat();
    (status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_loaded_moved_and_unloaded_by_hand() {
    let fleet = Plan::tight(2, &["alpha", "beta"]).start().await;
    let (ok, said) = cortex(&fleet, &["load", "alpha", "--node", "n1", "--wait"]).await;
    assert!(ok && said.contains("alpha is ready on n1 after "), "{said}");
    let (ok, said) = cortex(&fleet, &["move", "alpha", "--from", "n1", "--to", "n0"]).await;
    assert!(ok && said.contains("alpha has moved from n1 to n0"), "{said}");
    assert_eq!(fleet.ready_on("alpha").await, ["n0"]);
    let (ok, said) = cortex(&fleet, &["status", "--explain", "alpha"]).await;
    assert!(ok && said.contains("unload alpha") && said.contains("operator"), "{said}");
    let (ok, said) = cortex(&fleet, &["unload", "alpha"]).await;
    assert!(ok && said.contains("alpha has left n0"), "{said}");
    let (ok, said) = cortex(&fleet, &["unload", "alpha"]).await;
    assert!(!ok && said.contains("`alpha` is not loaded there"), "{said}");
    let (ok, said) = cortex(&fleet, &["load", "stranger", "--wait"]).await;
    assert!(!ok && said.contains("no node can have `stranger` now\n  n0: refused"), "{said}");
    let (ok, said) = cortex(&fleet, &["drain", "nobody"]).await;
    assert!(!ok && said.contains("no node is called `nobody`; there are: n0, n1"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_finishes_and_gets_nothing_new() {
    let mut plan = Plan::tight(2, &[]);
    plan.models = entry("twin", "") + "[[default]]\nmodel = \"twin\"\nreplicas = 2\n";
    let fleet = plan.start().await;
    until(async || fleet.ready_on("twin").await.len() == 2).await;
    let mut open = fleet.open("/v1/chat/completions", &long("twin")).await;
    open.until_text("\"content\":\"").await;
    let nodes = fleet.fleet().await["nodes"].clone();
    let busy = if nodes[0]["in_flight"] == 1 { "n0" } else { "n1" };
    let other = if busy == "n0" { "n1" } else { "n0" };
    let (ok, said) = cortex(&fleet, &["drain", busy]).await;
    assert!(ok && said.contains(&format!("{busy} gets nothing new; open: 1")), "{said}");
    for _ in 0..6 {
        assert_eq!(fleet.chat(&short("twin")).await.status, 200);
    }
    let answered = |line: &&str| line.contains(" request ") && line.contains("status=200");
    // Lines gather on their way.
    until(async || fleet.log().lines().filter(answered).count() == 6).await;
    let lines = fleet.log();
    let told: Vec<&str> = lines.lines().filter(answered).collect();
    let there = format!("node=\"{other}\"");
    assert!(told.iter().all(|line| line.contains(&there)), "{lines}");
    let drain = ["drain", busy, "--wait"];
    let waiting = cortex(&fleet, &drain);
    let (whole, (ok, said)) = tokio::join!(open.read_all(), waiting);
    assert!(whole.text().ends_with("data: [DONE]\n\n"), "it may finish");
    assert!(ok && said.contains(&format!("{busy} is drained: no request is open there")), "{said}");
    let (_, said) = cortex(&fleet, &["status"]).await;
    assert!(said.contains("drained"), "{said}");
    // With the other one drained as well nobody serves, and the client hears when to come back.
    assert!(cortex(&fleet, &["drain", other]).await.0);
    let refused = fleet.chat(&short("twin")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
    assert!(cortex(&fleet, &["resume", busy]).await.0);
    assert_eq!(fleet.chat(&short("twin")).await.status, 200);
}

// Requirement 115, and the faults' "config reload broken".
#[tokio::test(flavor = "multi_thread")]
async fn both_files_are_read_anew_and_a_broken_one_changes_nothing() {
    let fleet = Plan::tight(1, &["alpha"]).start().await;
    assert_eq!(fleet.chat(&short("beta")).await.status, 404);
    let models = fleet.directory.path().join("models.toml");
    let both = entry("alpha", "") + &entry("beta", "");
    // When the file changes.
    std::fs::write(&models, &both).expect("a file");
    until(async || fleet.chat(&short("beta")).await.status == 200).await;
    // A broken one, told to whoever asks and in the log.
    std::fs::write(&models, both.replace("[[models]]\nid = \"beta\"", "[[model]]\nid = \"beta\""))
        .expect("a file");
    let (ok, said) = cortex(&fleet, &["reload"]).await;
    assert!(!ok && said.contains("nothing has changed"), "{said}");
    assert!(said.contains("unknown key `model`"), "{said}");
    assert_eq!(fleet.chat(&short("beta")).await.status, 200);
    // On a signal; the neurons as well.
    let config = fleet.directory.path().join("cortex.toml");
    let text = std::fs::read_to_string(&config).expect("a file");
    std::fs::write(&models, both + "[aliases]\nshort = \"beta\"\n").expect("a file");
    let more = "[[neurons]]\nname = \"late\"\nendpoint = \"http://127.0.0.1:9\"\n";
    std::fs::write(&config, text.clone() + more).expect("a file");
    fleet.gateway.signal("-HUP");
    until(async || fleet.fleet().await["nodes"][1]["name"] == "late").await;
    assert_eq!(fleet.chat(&short("short")).await.json()["model"], "beta");
    std::fs::write(&config, text).expect("a file");
    let (status, said) = fleet.admin("POST", "/admin/reload", "").await;
    assert_eq!((status, &said["status"]), (200, &json!("reloaded")), "{said}");
    assert_eq!(fleet.fleet().await["nodes"].as_array().map(Vec::len), Some(1));
    assert_eq!(fleet.chat(&short("beta")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_those_who_wait_and_those_who_read_finish() {
    let fleet = Plan::tight(1, &["alpha", "beta"]).start().await;
    let mut reading = fleet.open("/v1/chat/completions", &long("alpha")).await;
    reading.until_text("\"content\":\"").await;
    let mut waiting = fleet.open("/v1/chat/completions", &short("beta")).await;
    until(async || fleet.explain("beta").await["waiting"] == 1).await;
    fleet.gateway.signal("-TERM");
    let (whole, cold) = tokio::join!(reading.read_all(), waiting.read_all());
    assert!(whole.complete && whole.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(cold.status, 200, "{}", cold.text());
    until(async || tokio::net::TcpStream::connect(fleet.clients).await.is_err()).await;
}
