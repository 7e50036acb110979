//! Keys, limits and budgets, over every dialect.

use std::ops::Deref;

use control::ModelStatus::Ready;
use cortex::hash_key;
use serde_json::Value;
use tempfile::TempDir;
use testkit::fake_neuron::{Answer as Script, End, FakeNeuron};
use wire::Dialect;

use crate::client::{Answer, Open, TestGateway, until};

const SECRET: &str = "sk-of-ann";

/// A gateway whose ledger goes with it.
struct Kept {
    gateway: TestGateway,
    dir: TempDir,
}

impl Deref for Kept {
    type Target = TestGateway;

    fn deref(&self) -> &TestGateway {
        &self.gateway
    }
}

/// A gateway over `neuron` with one key of these settings.
async fn gateway(neuron: &FakeNeuron, more: &str) -> Kept {
    let dir = tempfile::tempdir().expect("a temporary directory");
    kept(dir, neuron, more).await
}

async fn kept(dir: TempDir, neuron: &FakeNeuron, more: &str) -> Kept {
    let sha256 = hash_key(SECRET.as_bytes());
    let ledger = dir.path().join("ledger.sqlite").display().to_string();
    let keys = format!(
        "[ledger]\nurl = \"sqlite://{ledger}\"\n\
         [[auth.keys]]\nname = \"ann\"\nsha256 = \"{sha256}\"\n{more}\n"
    );
    let gateway = TestGateway::start(&[neuron.url()], &keys).await;
    gateway.until_nodes(|status| status == "ok").await;
    Kept { gateway, dir }
}

fn body(dialect: Dialect, stream: bool) -> String {
    let prompt = match dialect {
        Dialect::OpenaiCompletions | Dialect::OpenaiResponses => r#""hi""#,
        Dialect::OpenaiChat | Dialect::Anthropic => r#"[{"role":"user","content":"hi"}]"#,
    };
    let (field, cap) = match dialect {
        Dialect::OpenaiResponses => ("input", "max_output_tokens"),
        _ => (dialect.prompt_field(), "max_tokens"),
    };
    format!(r#"{{"model":"m","{cap}":900,"stream":{stream},"{field}":{prompt}}}"#)
}

async fn ask(gateway: &TestGateway, dialect: Dialect, stream: bool, headers: &str) -> Answer {
    let body = body(dialect, stream);
    gateway.send("POST", dialect.path(), headers, body.as_bytes()).await
}

fn bearer() -> String {
    format!("authorization: Bearer {SECRET}\r\n")
}

/// An answer of a thousand tokens, 100 of them the prompt's, as this dialect tells it.
fn thousand(dialect: Dialect, stream: bool) -> Script {
    let usage = match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiCompletions => {
            r#""usage":{"prompt_tokens":100,"completion_tokens":900,"total_tokens":1000}"#
        }
        Dialect::OpenaiResponses | Dialect::Anthropic => {
            r#""usage":{"input_tokens":100,"output_tokens":900}"#
        }
    };
    if !stream {
        let body = format!(r#"{{"id":"a","content":[{{"text":"x"}}],{usage}}}"#);
        let (status, headers, body) = (200, Vec::new(), body.into_bytes());
        return Script::Whole { status, content_type: "application/json", headers, body };
    }
    let last = match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiCompletions => {
            format!("data: {{\"choices\":[],{usage}}}\n\ndata: [DONE]\n\n")
        }
        Dialect::OpenaiResponses => format!(
            "event: response.completed\ndata: {{\"type\":\"response.completed\",\
             \"response\":{{\"output\":[],{usage}}}}}\n\n"
        ),
        Dialect::Anthropic => format!(
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{}},{usage}}}\n\n\
             event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        ),
    };
    // Cut where it hurts: within the usage.
    let (first, second) = last.split_at(last.len() / 2);
    let pieces = vec![first.as_bytes().to_vec(), second.as_bytes().to_vec()];
    Script::Stream { pieces, pause: std::time::Duration::ZERO, end: End::Clean }
}

fn assert_refused(dialect: Dialect, answer: &Answer, status: u16, kinds: (&str, &str)) {
    assert_eq!(answer.status, status, "{dialect:?}: {}", answer.text());
    let json = answer.json();
    let (openai, anthropic) = kinds;
    if dialect == Dialect::Anthropic {
        assert_eq!(json["type"], "error");
        assert_eq!(json["error"]["type"], anthropic, "{json}");
    } else {
        assert_eq!(json["error"]["code"], openai, "{json}");
        assert!(json["error"].get("param").is_some_and(Value::is_null), "{json}");
    }
}

// Requirement 113
#[tokio::test]
async fn twelve_requests_of_a_thousand_tokens_are_cut_off_at_six_thousand() {
    for dialect in Dialect::ALL {
        for stream in [false, true] {
            let neuron = FakeNeuron::start(&[("m", Ready)]).await;
            neuron.answer_with(thousand(dialect, stream));
            let gateway = gateway(&neuron, "budget = { tokens = 6000 }").await;
            let mut passed = 0;
            for _ in 0..12 {
                let answer = ask(&gateway, dialect, stream, &bearer()).await;
                if answer.status == 200 {
                    passed += 1;
                    continue;
                }
                let kinds = ("insufficient_quota", "rate_limit_error");
                assert_refused(dialect, &answer, 429, kinds);
                assert_eq!(answer.header("x-should-retry"), Some("false"));
            }
            assert_eq!(passed, 6, "{dialect:?} {stream}");
            assert_eq!(neuron.received().len(), 6, "what is refused reaches no node");
        }
    }
}

#[tokio::test]
async fn a_budget_with_a_window_says_when_to_come_back() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    neuron.answer_with(thousand(Dialect::OpenaiChat, false));
    let more = "budget = { tokens = 1000, window_secs = 3600 }";
    let gateway = gateway(&neuron, more).await;
    assert_eq!(ask(&gateway, Dialect::OpenaiChat, false, &bearer()).await.status, 200);
    let refused = ask(&gateway, Dialect::OpenaiChat, false, &bearer()).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("60")));
}

#[tokio::test]
async fn without_a_good_key_nothing_but_the_health_is_seen() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = gateway(&neuron, "").await;
    for dialect in Dialect::ALL {
        for headers in ["", "authorization: Bearer wrong\r\n", "x-api-key: wrong\r\n"] {
            let answer = ask(&gateway, dialect, false, headers).await;
            assert_refused(dialect, &answer, 401, ("invalid_api_key", "authentication_error"));
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    for path in ["/v1/models", "/v1/models/m", "/version", "/", "/nowhere"] {
        assert_eq!(gateway.get(path).await.status, 401, "{path}");
    }
    assert_eq!(gateway.get("/health").await.status, 200);
    let with_key = gateway.send("GET", "/v1/models", &bearer(), b"").await;
    assert_eq!(with_key.status, 200);
    assert!(neuron.received().is_empty());
    for (path, headers, status) in [
        ("/metrics", String::new(), 401),
        ("/metrics", bearer(), 403),
        ("/admin/fleet", bearer(), 403),
        ("/health", String::new(), 200),
    ] {
        let addr = gateway.metrics_addr;
        let answer = Open::request(addr, "GET", path, &headers, b"").await.read_all().await;
        assert_eq!(answer.status, status, "{path} {headers}");
    }
}

#[tokio::test]
async fn the_node_never_sees_the_clients_key() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    neuron.answer_with(thousand(Dialect::OpenaiChat, false));
    let gateway = gateway(&neuron, "").await;
    let headers = format!("{}x-cortex-identity: somebody\r\ncookie: a=b\r\n", bearer());
    assert_eq!(ask(&gateway, Dialect::OpenaiChat, false, &headers).await.status, 200);
    let received = &neuron.received()[0];
    for name in ["authorization", "x-api-key", "cookie", "x-cortex-identity"] {
        assert_eq!(received.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_rate_is_told_and_kept() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    neuron.answer_with(thousand(Dialect::OpenaiChat, true));
    let gateway = gateway(&neuron, "rpm = 3\ntpm = 100000").await;
    for left in ["2", "1", "0"] {
        let answer = ask(&gateway, Dialect::OpenaiChat, true, &bearer()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(left));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("100000"));
    }
    let refused = ask(&gateway, Dialect::OpenaiChat, true, &bearer()).await;
    let kinds = ("rate_limit_exceeded", "rate_limit_error");
    assert_refused(Dialect::OpenaiChat, &refused, 429, kinds);
    let wait: u32 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=20).contains(&wait), "{wait}");
}

#[tokio::test]
async fn requests_at_once_are_counted_until_their_end() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let first = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".to_vec();
    let pause = std::time::Duration::ZERO;
    neuron.answer_with(Script::Stream { pieces: vec![first], pause, end: End::Stall });
    let gateway = gateway(&neuron, "concurrency = 1\nbudget = { tokens = 100000 }").await;
    let chat = body(Dialect::OpenaiChat, true);
    let path = Dialect::OpenaiChat.path();
    let mut open = Open::request(gateway.addr, "POST", path, &bearer(), chat.as_bytes()).await;
    open.until_text("content").await;
    assert_eq!(ask(&gateway, Dialect::OpenaiChat, true, &bearer()).await.status, 429);
    drop(open);
    // Its seat is free once the gateway has noticed that it left (requirements 62 and 73).
    neuron.answer_with(thousand(Dialect::OpenaiChat, false));
    until(async || ask(&gateway, Dialect::OpenaiChat, false, &bearer()).await.status == 200).await;
}

#[tokio::test]
async fn a_restart_remembers_what_was_spent_and_the_ledger_tells_it() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    neuron.answer_with(thousand(Dialect::Anthropic, true));
    let more = "scope = \"admin\"\nbudget = { tokens = 2000 }";
    let Kept { mut gateway, dir } = gateway(&neuron, more).await;
    assert_eq!(ask(&gateway, Dialect::Anthropic, true, &bearer()).await.status, 200);
    gateway.signal_stop();
    gateway.until_stopped().await;
    let gateway = kept(dir, &neuron, more).await;
    let statuses = [
        ask(&gateway, Dialect::Anthropic, true, &bearer()).await.status,
        ask(&gateway, Dialect::Anthropic, true, &bearer()).await.status,
    ];
    assert_eq!(statuses, [200, 429]);
    let operator = async |path: &str| {
        let addr = gateway.metrics_addr;
        Open::request(addr, "GET", path, &bearer(), b"").await.read_all().await
    };
    let rows = operator("/admin/usage?key=ann").await.json();
    assert_eq!(rows.as_array().map(Vec::len), Some(3), "{rows}");
    assert_eq!(rows[0]["prompt_tokens"], 100);
    assert_eq!(rows[0]["completion_tokens"], 900);
    let ends: Vec<_> = rows.as_array().into_iter().flatten().map(|row| &row["end"]).collect();
    assert_eq!(ends.iter().filter(|end| **end == "insufficient_quota").count(), 1, "{rows}");
    let csv = operator("/admin/usage?format=csv").await;
    assert_eq!(csv.text().lines().count(), 4, "{}", csv.text());
    assert_eq!(operator("/admin/usage?from=1").await.status, 400);
    let keys = operator("/admin/keys").await.json();
    assert_eq!(keys[0]["spent"], 2000, "{keys}");
}
