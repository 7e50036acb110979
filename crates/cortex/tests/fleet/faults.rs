//! Neurons that die, hang and are cut off, beside a twin that serves the same model.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Open, until};
use crate::dropper::Dropper;
use crate::programs::{At, Fleet, Plan, entry, free_port, long, payloads, short};

/// Requests of each calm test.
const REQUESTS: usize = 200;
/// Clients that ask at the same time.
const CLIENTS: usize = 4;
/// A stream of which so many bytes have come has shown a few dozen words.
const BEGUN: usize = 8_000;
/// A stream that nobody can go on with has its error event by then.
const WORD_BY: Duration = Duration::from_secs(2);

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    /// In a network namespace.
    Partition,
    /// By a wire that drops.
    Cut,
}

/// Two neurons that both serve `twin`; for a partition the first has a network of its own.
struct Twins {
    fleet: Fleet,
    network: Option<Network>,
    wire: Option<Dropper>,
}

/// A network namespace with one neuron in it; without the right to make one there is none.
struct Network {
    name: String,
    outer: String,
    inner: String,
}

impl Network {
    /// None where the kernel does not let us.
    fn make(number: u8) -> Option<(Network, SocketAddr)> {
        let mark = format!("{}x{number}", std::process::id() % 10_000);
        let (name, outer, inner) =
            (format!("ctx{mark}"), format!("cto{mark}"), format!("cti{mark}"));
        let network = Network { name: name.clone(), outer: outer.clone(), inner: inner.clone() };
        let (here, there) = (format!("10.98.{number}.1/30"), format!("10.98.{number}.2"));
        let inside = |rest: &[&str]| ip(&[&["netns", "exec", &name, "ip"], rest].concat());
        let made = ip(&["netns", "add", &name])
            && ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner])
            && ip(&["link", "set", &inner, "netns", &name])
            && ip(&["addr", "add", &here, "dev", &outer])
            && ip(&["link", "set", &outer, "up"])
            && inside(&["addr", "add", &format!("{there}/30"), "dev", &inner])
            && inside(&["link", "set", &inner, "up"])
            && inside(&["link", "set", "lo", "up"]);
        made.then(|| (network, format!("{there}:13131").parse().expect("an address")))
    }

    /// Cuts every packet off, without a word to either side.
    fn cut(&self, is_cut: bool) {
        let state = if is_cut { "down" } else { "up" };
        assert!(ip(&["netns", "exec", &self.name, "ip", "link", "set", &self.inner, state]));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["link", "del", &self.outer]);
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Twins {
    fn plan() -> Plan {
        let models = entry("twin", "") + "[[default]]\nmodel = \"twin\"\nreplicas = 2\n";
        Plan { models, ..Plan::tight(2, &[]) }
    }

    async fn start(fault: Fault, number: u8) -> Option<Twins> {
        let mut plan = Twins::plan();
        let (mut network, mut wire) = (None, None);
        if fault == Fault::Cut {
            let addr = free_port();
            let made = Dropper::to(addr).await;
            plan.nodes[0] = At::Behind(addr, made.addr);
            wire = Some(made);
        }
        if fault == Fault::Partition {
            let Some((made, addr)) = Network::make(number) else {
                eprintln!("SKIPPED: this kernel does not let us make a network namespace");
                return None;
            };
            plan.nodes[0] = At::Namespace(addr, made.name.clone());
            network = Some(made);
        }
        Some(Twins::of(plan, network, wire).await)
    }

    async fn of(plan: Plan, network: Option<Network>, wire: Option<Dropper>) -> Twins {
        let fleet = plan.start().await;
        until(async || fleet.ready_on("twin").await.len() == 2).await;
        Twins { fleet, network, wire }
    }

    fn strike(&self, fault: Fault, place: usize) {
        match fault {
            Fault::Kill => self.fleet.nodes[place].signal("-KILL"),
            Fault::Stop => self.fleet.nodes[place].signal("-STOP"),
            Fault::Partition | Fault::Cut => self.cut(true),
        }
    }

    fn heal(&mut self, fault: Fault, place: usize) {
        match fault {
            Fault::Kill => self.fleet.nodes[place].start(),
            Fault::Stop => self.fleet.nodes[place].signal("-CONT"),
            Fault::Partition | Fault::Cut => self.cut(false),
        }
    }

    /// The first node alone has a wire that can be cut.
    fn cut(&self, is_cut: bool) {
        self.network.iter().for_each(|network| network.cut(is_cut));
        self.wire.iter().for_each(|wire| wire.cut(is_cut));
    }

    /// The place of the node on which the only open request is.
    async fn busy_place(&self) -> usize {
        let fleet = self.fleet.fleet().await;
        let nodes = fleet["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().position(|node| node["in_flight"] != 0).expect("a request is open")
    }
}

/// Two hundred requests, half of them streams, while a node breaks and comes back: no client sees
/// an error, and afterwards the node serves again by itself.
async fn nobody_notices(fault: Fault, number: u8) {
    let Some(mut twins) = Twins::start(fault, number).await else { return };
    let addr = twins.fleet.clients;
    let (sender, mut done) = tokio::sync::mpsc::channel(REQUESTS);
    for client in 0..CLIENTS {
        let sender = sender.clone();
        tokio::spawn(async move {
            for at in 0..REQUESTS / CLIENTS {
                let mut body = short("twin");
                body["stream"] = (at + client).is_multiple_of(2).into();
                let begun = Instant::now();
                let answer = Open::chat(addr, &body.to_string()).await.read_all().await;
                let _ = sender.send((answer, begun.elapsed())).await;
            }
        });
    }
    drop(sender);
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while let Some((answer, took)) = done.recv().await {
        count += 1;
        slowest = slowest.max(took);
        match count {
            60 => twins.strike(fault, 0),
            140 => twins.heal(fault, 0),
            _ => {}
        }
        let text = answer.text();
        assert_eq!(answer.status, 200, "{fault:?}, request {count}: {text}");
        assert!(answer.complete && !text.contains("\"error\""), "{fault:?}, {count}: {text}");
    }
    eprintln!("{fault:?}: {count} of {REQUESTS} requests well, the slowest took {slowest:?}");
    assert_eq!(count, REQUESTS);
    twins.fleet.until_ready("twin", "n0", true).await;
    twins.fleet.until_node_is(0, "ok").await;
    until(async || {
        let replicas = twins.fleet.explain("twin").await["replicas"].clone();
        let replicas = replicas.as_array().cloned().unwrap_or_default();
        replicas.len() == 2 && replicas.iter().all(|it| it["is_suspect"] == false)
    })
    .await;
}

// Requirement 123
#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_a_neuron_is_killed() {
    nobody_notices(Fault::Kill, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_a_neuron_hangs() {
    nobody_notices(Fault::Stop, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_a_neuron_is_cut_off() {
    nobody_notices(Fault::Partition, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_a_neurons_wire_is_cut() {
    nobody_notices(Fault::Cut, 0).await;
}

/// What a client reads of a stream, whatever its dialect: everything but ids, times and the bounds
/// of pieces.
#[derive(Debug, PartialEq)]
struct Read {
    words: String,
    /// The names of events, neighbours of one name as one.
    kinds: Vec<String>,
    usage: Vec<u64>,
    /// Different ids of the answer.
    ids: usize,
}

fn read(text: &str) -> Read {
    let mut read = Read { words: String::new(), kinds: Vec::new(), usage: Vec::new(), ids: 0 };
    let mut ids = std::collections::BTreeSet::new();
    let mut last_number = None;
    for event in payloads(text) {
        let choice = &event["choices"][0];
        let word = [&choice["delta"]["content"], &choice["text"], &event["delta"]["text"]]
            .into_iter()
            .chain([&event["delta"]].into_iter().filter(|it| it.is_string()))
            .find_map(Value::as_str);
        read.words += word.unwrap_or_default();
        let kind = match event["type"].as_str() {
            Some(kind) => kind.to_owned(),
            None => format!("{} {}", choice["finish_reason"], event["usage"].is_object()),
        };
        if kind != "ping" && read.kinds.last() != Some(&kind) {
            read.kinds.push(kind);
        }
        for id in [&event["id"], &event["response"]["id"], &event["message"]["id"]] {
            ids.extend(id.as_str().map(str::to_owned));
        }
        for usage in [&event["usage"], &event["response"]["usage"]] {
            let counts = ["completion_tokens", "output_tokens"];
            read.usage.extend(counts.iter().filter_map(|name| usage[*name].as_u64()));
        }
        // Requirement 10: numbers go up by one, over the seam as well.
        if let Some(number) = event["sequence_number"].as_u64() {
            assert_eq!(number, last_number.map_or(0, |last: u64| last + 1), "{event}");
            last_number = Some(number);
        }
    }
    read.ids = ids.len();
    read
}

/// The same question in each dialect, greedy or drawn.
fn streams(temperature: f64) -> [(&'static str, Value); 4] {
    let long = long("twin");
    let common = json!({
        "model": "twin", "temperature": temperature, "seed": 7, "ignore_eos": true, "stream": true
    });
    let with = |more: Value| {
        let mut body = common.clone();
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        body
    };
    let messages = &long["messages"];
    [
        (
            "/v1/chat/completions",
            with(json!({
                "messages": messages, "max_tokens": 900, "stream_options": {"include_usage": true}
            })),
        ),
        ("/v1/completions", with(json!({"prompt": "A neuron is", "max_tokens": 900}))),
        ("/v1/responses", with(json!({"input": "What is a neuron?", "max_output_tokens": 900}))),
        ("/v1/messages", with(json!({"messages": messages, "max_tokens": 900}))),
    ]
}

/// Faults are tried one after the other: each has a fleet of its own, and a machine of two cores
/// that runs several at once is late for reasons that are not theirs.
static ONE_FAULT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A stream whose node breaks goes on at the twin as if nothing had happened.
async fn goes_on(fault: Fault, number: u8, temperature: f64) {
    let _alone = ONE_FAULT.lock().await;
    let Some(mut twins) = Twins::start(fault, number).await else { return };
    for (path, body) in streams(temperature) {
        let undisturbed = twins.fleet.post(path, &body).await.text();
        let wanted = read(&undisturbed);
        assert!(wanted.words.len() > 500, "{path}: {undisturbed}");
        // The partition is one node's alone: ask until the stream is there.
        let (mut open, place) = loop {
            let mut open = twins.fleet.open(path, &body).await;
            open.until_bytes(BEGUN).await;
            let place = twins.busy_place().await;
            if matches!(fault, Fault::Kill | Fault::Stop) || place == 0 {
                break (open, place);
            }
        };
        let struck = Instant::now();
        twins.strike(fault, place);
        let text = open.read_all().await.text();
        eprintln!("{fault:?} {path} at {temperature}: whole after {:?}", struck.elapsed());
        let got = read(&text);
        assert_eq!(got, wanted, "{fault:?} {path}\n{text}");
        assert!(!text.contains(": tokens") && !text.contains(": lost"), "{text}");
        twins.heal(fault, place);
        twins.fleet.until_says_ready("twin", place).await;
        until(async || twins.fleet.ready_on("twin").await.len() == 2).await;
        until(async || {
            let replicas = twins.fleet.explain("twin").await["replicas"].clone();
            let replicas = replicas.as_array().cloned().unwrap_or_default();
            replicas.len() == 2 && replicas.iter().all(|it| it["is_suspect"] == false)
        })
        .await;
    }
    let moved = twins.fleet.log().matches("a stream goes on elsewhere").count();
    assert_eq!(moved, 4, "each stream has changed its node once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_its_neuron_is_killed() {
    goes_on(Fault::Kill, 0, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drawn_stream_goes_on_with_the_same_draws() {
    goes_on(Fault::Kill, 0, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_its_neuron_hangs() {
    goes_on(Fault::Stop, 0, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_its_neuron_is_cut_off() {
    goes_on(Fault::Partition, 2, 0.0).await;
}

/// The twin was started anew and the gateway has not polled it since: the model comes back there,
/// and the stream with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_at_a_neuron_that_was_just_started_anew() {
    let _alone = ONE_FAULT.lock().await;
    let gateway = "poll_interval_ms = 8000".to_owned();
    let mut twins = Twins::of(Plan { gateway, ..Twins::plan() }, None, None).await;
    let (path, body) = streams(0.0)[0].clone();
    let wanted = read(&twins.fleet.post(path, &body).await.text());
    let mut open = twins.fleet.open(path, &body).await;
    open.until_bytes(BEGUN).await;
    let place = twins.busy_place().await;
    let other = &mut twins.fleet.nodes[1 - place];
    other.signal("-KILL");
    other.start();
    let addr = other.addr;
    until(async || tokio::net::TcpStream::connect(addr).await.is_ok()).await;
    assert_eq!(twins.fleet.ready_on("twin").await.len(), 2, "the gateway does not know yet");
    let struck = Instant::now();
    twins.strike(Fault::Kill, place);
    let text = open.read_all().await.text();
    eprintln!(
        "whole {:?} after its node was killed beside one without the model",
        struck.elapsed()
    );
    assert_eq!(read(&text), wanted, "{text}");
}

/// Of two answers at once none can be continued: the client hears of it in time.
async fn ends_with_a_word(fault: Fault, number: u8) {
    let Some(mut twins) = Twins::start(fault, number).await else { return };
    let mut body = long("twin");
    body["n"] = 2.into();
    let (mut open, place) = loop {
        let mut open = twins.fleet.open("/v1/chat/completions", &body).await;
        open.until_bytes(BEGUN).await;
        let place = twins.busy_place().await;
        if matches!(fault, Fault::Kill | Fault::Stop) || place == 0 {
            break (open, place);
        }
    };
    let struck = Instant::now();
    twins.strike(fault, place);
    let answer = open.read_all().await;
    let took = struck.elapsed();
    eprintln!("{fault:?}: the error event came after {took:?}");
    let text = answer.text();
    assert!(answer.complete, "the gateway's own answer ends properly");
    let last = payloads(&text).pop().expect("a last event");
    assert_eq!(last["error"]["code"], "upstream_disconnected", "{text}");
    assert!(!text.contains("[DONE]") && text.ends_with("\n\n"), "{text}");
    assert!(took < WORD_BY, "{took:?}");
    twins.heal(fault, place);
    twins.fleet.until_ready("twin", &format!("n{place}"), true).await;
}

// Requirement 122
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_on_ends_with_a_word_when_its_neuron_is_killed() {
    ends_with_a_word(Fault::Kill, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_on_ends_with_a_word_when_its_neuron_hangs() {
    ends_with_a_word(Fault::Stop, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_on_ends_with_a_word_when_its_neuron_is_cut_off() {
    ends_with_a_word(Fault::Partition, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_on_ends_with_a_word_when_its_wire_is_cut() {
    ends_with_a_word(Fault::Cut, 0).await;
}

/// The engine child dies and its neuron lives: the twin takes the stream over all the same.
// Requirement 121
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_its_engine_is_killed() {
    let Some(twins) = Twins::start(Fault::Kill, 0).await else { return };
    let (path, body) = streams(0.0)[0].clone();
    let wanted = read(&twins.fleet.post(path, &body).await.text());
    let mut open = twins.fleet.open(path, &body).await;
    open.until_bytes(BEGUN).await;
    let addr = twins.fleet.nodes[twins.busy_place().await].addr;
    let models = Open::request(addr, "GET", "/models", "", b"").await.read_all().await.json();
    let pid = models[0]["pid"].as_u64().expect("an engine");
    crate::programs::signal_to(u32::try_from(pid).expect("a pid"), "-KILL");
    assert_eq!(read(&open.read_all().await.text()), wanted);
    until(async || twins.fleet.ready_on("twin").await.len() == 2).await;
}
