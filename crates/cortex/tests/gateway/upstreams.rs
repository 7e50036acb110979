//! Which node answers, and what it and the client are given.

use std::time::{Duration, Instant};

use control::ModelStatus::Ready;
use testkit::fake_neuron::{Answer, End, FakeNeuron};

use crate::client::{TestGateway, until};

const CHAT: &str = r#"{"model":"m","messages":[]}"#;

fn whole(status: u16, headers: Vec<&'static str>, body: &str) -> Answer {
    let body = body.as_bytes().to_vec();
    Answer::Whole { status, content_type: "application/json", headers, body }
}

fn named(name: &str) -> Answer {
    whole(200, Vec::new(), &format!("{{\"from\":\"{name}\"}}"))
}

#[tokio::test]
async fn a_whole_answer_passes_with_its_status_body_and_headers() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    for (status, body) in [(200, "{\"ok\": 1.0}"), (400, "{\"error\":{}}"), (429, "{ }"), (500, "")]
    {
        let headers =
            vec!["retry-after: 7", "x-extra: kept", "server: secret/1.0", "set-cookie: a=b"];
        neuron.answer_with(whole(status, headers, body));
        let got = gateway.chat(CHAT).await;
        assert_eq!((got.status, got.text().as_str()), (status, body));
        assert!(got.complete);
        assert_eq!(got.header("content-length"), Some(body.len().to_string().as_str()));
        assert_eq!(got.header("content-type"), Some("application/json"));
        assert_eq!(got.header("retry-after"), Some("7"));
        assert_eq!(got.header("x-extra"), Some("kept"));
        assert_eq!((got.header("server"), got.header("set-cookie")), (None, None));
    }
}

// Requirements 29 and 32
#[tokio::test]
async fn a_node_gets_the_same_bytes_the_request_id_and_no_identity() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    neuron.answer_with(named("n0"));
    let body = "{ \"model\" : \"m\",\n\t\"messages\":[],\"x\":1.0,\"x\":\"\\u00e4\" }";
    let headers = "authorization: Bearer k\r\ncookie: c\r\nx-forwarded-for: 1.2.3.4\r\n\
                   x-request-id: mine-1\r\naccept: text/event-stream\r\n";
    let path = "/v1/chat/completions?beta=true";
    let got = gateway.send("POST", path, headers, body.as_bytes()).await;
    assert_eq!(got.header("x-request-id"), Some("mine-1"));

    let received = neuron.received();
    assert_eq!(received.len(), 1);
    let request = &received[0];
    assert_eq!((request.target.as_str(), request.body.as_slice()), (path, body.as_bytes()));
    assert_eq!(request.header("x-request-id"), Some("mine-1"));
    assert_eq!(request.header("accept"), Some("text/event-stream"));
    for gone in ["authorization", "cookie", "x-forwarded-for", "connection"] {
        assert_eq!(request.header(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn the_less_loaded_replica_answers() {
    let (busy, idle) =
        (FakeNeuron::start(&[("m", Ready)]).await, FakeNeuron::start(&[("m", Ready)]).await);
    busy.report_running(5);
    busy.answer_with(named("busy"));
    idle.answer_with(named("idle"));
    let gateway = TestGateway::over(&[&busy, &idle]).await;
    for _ in 0..5 {
        assert_eq!(gateway.chat(CHAT).await.json()["from"], "idle");
    }
    busy.report_running(0);
    idle.report_running(3);
    until(async || gateway.chat(CHAT).await.json()["from"] == "busy").await;
}

// Requirement 123
#[tokio::test]
async fn a_request_goes_to_the_twin_when_no_byte_of_an_answer_has_come() {
    let (bad, good) =
        (FakeNeuron::start(&[("m", Ready)]).await, FakeNeuron::start(&[("m", Ready)]).await);
    good.report_running(1);
    good.answer_with(named("good"));
    let gateway = TestGateway::over(&[&bad, &good]).await;
    // A node that answers "not now" is sound; one that breaks off is left alone for a while.
    for answer in [whole(503, vec!["retry-after: 1"], "{}"), Answer::Nothing] {
        let before = (bad.received().len(), good.received().len());
        bad.answer_with(answer.clone());
        let got = gateway.chat(CHAT).await;
        assert_eq!((got.status, got.json()["from"].as_str()), (200, Some("good")), "{answer:?}");
        assert_eq!(bad.received().len(), before.0 + 1, "{answer:?}");
        assert_eq!(good.received().len(), before.1 + 1, "{answer:?}");
    }
    bad.stop();
    assert_eq!(gateway.chat(CHAT).await.json()["from"], "good");
}

#[tokio::test]
async fn at_most_two_replicas_are_asked_and_none_after_the_first_byte() {
    let nodes = [
        FakeNeuron::start(&[("m", Ready)]).await,
        FakeNeuron::start(&[("m", Ready)]).await,
        FakeNeuron::start(&[("m", Ready)]).await,
    ];
    let gateway = TestGateway::over(&[&nodes[0], &nodes[1], &nodes[2]]).await;
    let asked = || nodes.iter().map(|node| node.received().len()).sum::<usize>();
    for node in &nodes {
        node.answer_with(Answer::Nothing);
    }
    let got = gateway.chat(CHAT).await;
    assert_eq!((got.status, asked()), (503, 2));
    assert!(got.header("retry-after").is_some());

    let pieces = vec![b"data: {\"a\":".to_vec()];
    for node in &nodes {
        let pieces = pieces.clone();
        node.answer_with(Answer::Stream { pieces, pause: Duration::ZERO, end: End::Cut });
    }
    assert!(gateway.chat(CHAT).await.text().contains("upstream_disconnected"));
    assert_eq!(asked(), 3);
}

/// The twin was started anew since it was polled last, and has no models yet.
#[tokio::test]
async fn a_twin_that_has_lost_its_models_does_not_speak_for_the_fleet() {
    let (breaks, anew) =
        (FakeNeuron::start(&[("m", Ready)]).await, FakeNeuron::start(&[("m", Ready)]).await);
    anew.report_running(1);
    let urls = [breaks.url(), anew.url()];
    let gateway = TestGateway::start(&urls, "poll_interval_ms = 5000").await;
    gateway.until_nodes(|status| status == "ok").await;
    breaks.answer_with(Answer::Nothing);
    anew.hold(&[]);
    anew.answer_with(whole(404, Vec::new(), "{}"));
    let (got, ()) = tokio::join!(gateway.chat(CHAT), async {
        until(async || breaks.received().len() == 1).await;
        breaks.answer_with(named("back"));
    });
    assert_eq!((got.status, got.json()["from"].as_str()), (200, Some("back")), "{}", got.text());
    // One that breaks whoever answers it breaks two nodes and no more.
    breaks.answer_with(Answer::Nothing);
    let before = breaks.received().len();
    assert_eq!(gateway.chat(CHAT).await.status, 503);
    assert!(breaks.received().len() <= before + 2);
}

#[tokio::test]
async fn a_lone_nodes_not_now_is_passed_on_in_its_own_words() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    neuron.answer_with(whole(503, vec!["retry-after: 9"], "{\"mine\":1}"));
    let got = gateway.chat(CHAT).await;
    assert_eq!((got.status, got.text().as_str()), (503, "{\"mine\":1}"));
    assert_eq!((got.header("retry-after"), neuron.received().len()), (Some("9"), 1));
}

#[tokio::test]
async fn a_wait_for_an_answer_ends_when_the_node_is_lost() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let more = "poll_timeout_ms = 50";
    let gateway = TestGateway::start(&[neuron.url()], more).await;
    gateway.until_nodes(|status| status == "ok").await;
    neuron.answer_with(Answer::Silence);
    let (got, ()) = tokio::join!(gateway.chat(CHAT), async {
        until(async || neuron.received().len() == 1).await;
        neuron.hang(true);
    });
    assert_eq!((got.status, got.json()["error"]["code"].as_str()), (503, Some("node_unavailable")));
}

// Requirement 117
#[tokio::test]
async fn a_hung_neuron_changes_nobody_elses_polls() {
    let (hung, live) =
        (FakeNeuron::start(&[("m", Ready)]).await, FakeNeuron::start(&[("m", Ready)]).await);
    live.answer_with(named("live"));
    let urls = [hung.url(), live.url()];
    let gateway = TestGateway::start(&urls, "poll_timeout_ms = 400").await;
    gateway.until_nodes(|status| status == "ok").await;
    hung.hang(true);
    let (hung_before, live_before, begun) = (hung.polls(), live.polls(), Instant::now());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let expected = begun.elapsed().as_millis() as usize / 50;
    let (hung_polls, live_polls) = (hung.polls() - hung_before, live.polls() - live_before);
    assert!(hung_polls <= 6, "a hung neuron is asked once a time-out, got {hung_polls}");
    assert!(live_polls * 10 >= expected * 4, "{live_polls} polls of about {expected}");

    until(async || gateway.get("/health").await.json()["nodes"][0]["status"] == "lost").await;
    assert_eq!(gateway.chat(CHAT).await.json()["from"], "live");
    // One answer is proof of life.
    hung.hang(false);
    gateway.until_nodes(|status| status == "ok").await;
}

#[tokio::test]
async fn a_node_that_says_it_does_not_serve_gets_nothing() {
    let (leaving, staying) =
        (FakeNeuron::start(&[("m", Ready)]).await, FakeNeuron::start(&[("m", Ready)]).await);
    staying.report_running(9);
    staying.answer_with(named("staying"));
    let gateway = TestGateway::over(&[&leaving, &staying]).await;
    leaving.refuse_service();
    until(async || gateway.get("/health").await.json()["nodes"][0]["status"] == "unavailable")
        .await;
    assert_eq!(gateway.chat(CHAT).await.json()["from"], "staying");
    assert!(leaving.received().is_empty());
}
