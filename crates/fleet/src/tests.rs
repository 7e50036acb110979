//! Tables for each decision, and a random walk over operations for the invariants.

use std::sync::{Arc, LazyLock};

use control::{Health, HealthStatus, ModelHealth, ModelReport, ModelStatus};
use proptest::prelude::*;

use crate::{
    Ask, Desk, Forward, Link, NodeReport, Observation, Outliers, Refusal, Route, STALE_AFTER_MS,
    Snapshot, Standing, Tick, Unavailable, observe, rate, route,
};

fn model(id: &str, status: ModelStatus) -> ModelReport {
    let ready = status == ModelStatus::Ready;
    ModelReport {
        id: id.to_owned(),
        harness: "native".to_owned(),
        status,
        devices: Vec::new(),
        world_size: 1,
        quant: None,
        vram_used_mb: 0,
        endpoint: ready.then(|| format!("http://upstream/{id}")),
        capabilities: Vec::new(),
        limit: control::Limit::default(),
        dialects: Vec::new(),
        progress: None,
        error: None,
        pid: None,
        fast_paths: Vec::new(),
        host_used_mb: 0,
        prefix_digests: Vec::new(),
    }
}

fn report(models: Vec<ModelReport>, running: u32) -> NodeReport {
    let gauges = models.iter().map(|m| ModelHealth { id: m.id.clone(), running, ..<_>::default() });
    let health = Health {
        uptime_secs: 1,
        status: HealthStatus::Ok,
        devices: Vec::new(),
        host_memory: None,
        models: gauges.collect(),
        activation: control::Activation::default(),
    };
    NodeReport { health, models, discovery: None }
}

fn missed() -> Observation {
    Observation::Missed { why: "connection refused".to_owned() }
}

fn fleet(names: &[&str]) -> Snapshot {
    Snapshot::unseen(names.iter().map(|n| ((*n).to_owned(), format!("http://{n}:13131"))))
}

/// A fleet whose nodes `a`, `b`, ... hold `m` in these states, with these loads.
fn holding(states: &[(ModelStatus, u32)]) -> Snapshot {
    let names: Vec<String> = ('a'..).take(states.len()).map(String::from).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut snapshot = fleet(&names);
    for (name, (status, running)) in names.iter().zip(states) {
        let seen = Observation::Report(report(vec![model("m", *status)], *running));
        snapshot = observe(&snapshot, name, seen, Tick(0));
    }
    snapshot
}

static DESK: LazyLock<Desk> = LazyLock::new(Desk::default);
static OUTLIERS: LazyLock<Outliers> = LazyLock::new(Outliers::default);

fn ask(model: &str) -> Ask<'_> {
    let (desk, outliers) = (&*DESK, &*OUTLIERS);
    Ask { model, in_flight: &[], tried: None, desk, outliers, chain: &[], draw: 0 }
}

fn forwarded<'a>(route: Route<'a>) -> Forward<'a> {
    match route {
        Route::Forward(forward) => forward,
        Route::Refuse(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn refused(route: Route<'_>) -> Refusal {
    match route {
        Route::Refuse(refusal) => refusal,
        Route::Forward(forward) => panic!("forwarded: {forward:?}"),
    }
}

use ModelStatus::{Absent, Downloading, Draining, Failed, Loading, Ready, Restarting};

#[test]
fn the_least_loaded_replica_is_chosen_and_says_why() {
    let snapshot = holding(&[(Ready, 4), (Ready, 1), (Loading, 0), (Ready, 2)]);
    let chosen = forwarded(route(&snapshot, &ask("m"), Tick(1)));
    assert_eq!((chosen.name, chosen.score.load, chosen.candidates), ("b", 1000, 3));
    assert_eq!(chosen.url, "http://upstream/m");
}

#[test]
fn a_burst_between_two_polls_spreads_by_the_gateways_own_count() {
    let snapshot = holding(&[(Ready, 0), (Ready, 0)]);
    let mut in_flight = [0, 0];
    for _ in 0..10 {
        let asked = Ask { in_flight: &in_flight, ..ask("m") };
        let node = forwarded(route(&snapshot, &asked, Tick(1))).node;
        in_flight[node] += 1;
    }
    assert_eq!(in_flight, [5, 5]);

    // The second node is known to have two requests; they may be among ours.
    let snapshot = holding(&[(Ready, 0), (Ready, 2)]);
    let mut in_flight = [0, 0];
    for _ in 0..10 {
        let asked = Ask { in_flight: &in_flight, ..ask("m") };
        let node = forwarded(route(&snapshot, &asked, Tick(1))).node;
        in_flight[node] += 1;
    }
    assert_eq!(in_flight, [5, 5]);
}

#[test]
fn a_tie_in_load_goes_to_the_node_with_fewer_of_our_own_requests() {
    let snapshot = holding(&[(Ready, 3), (Ready, 3)]);
    let asked = Ask { in_flight: &[2, 1], ..ask("m") };
    assert_eq!(forwarded(route(&snapshot, &asked, Tick(1))).name, "b");
}

#[test]
fn a_model_that_nobody_has_is_not_found() {
    let snapshot = holding(&[(Ready, 0)]);
    assert_eq!(refused(route(&snapshot, &ask("other"), Tick(1))), Refusal::NotFound);
    assert_eq!(refused(route(&Snapshot::default(), &ask("m"), Tick(1))), Refusal::NotFound);
}

// Requirement 69
#[test]
fn a_model_is_not_called_unknown_before_every_node_was_heard() {
    let seen = Observation::Report(report(vec![model("m", Ready)], 0));
    let mut snapshot = observe(&fleet(&["a", "b"]), "a", seen, Tick(0));
    for _ in 0..5 {
        let refusal = refused(route(&snapshot, &ask("other"), Tick(1)));
        let (reason, retry_after_secs) = (Unavailable::Unheard, Some(1));
        assert_eq!(refusal, Refusal::Unavailable { reason, retry_after_secs });
        snapshot = observe(&snapshot, "b", missed(), Tick(1));
    }
    let seen = Observation::Report(report(Vec::new(), 0));
    snapshot = observe(&snapshot, "b", seen, Tick(1));
    assert_eq!(refused(route(&snapshot, &ask("other"), Tick(1))), Refusal::NotFound);
}

// Requirement 69
#[test]
fn a_known_model_that_is_not_ready_says_its_state_and_when_to_come_back() {
    let table: &[(&[ModelStatus], ModelStatus, bool)] = &[
        (&[Loading], Loading, true),
        (&[Restarting], Restarting, true),
        (&[Downloading], Downloading, true),
        (&[Draining], Draining, true),
        (&[Failed], Failed, false),
        (&[Absent], Absent, false),
        (&[Failed, Loading, Absent], Loading, true),
        (&[Restarting, Loading], Restarting, true),
    ];
    for (states, named, retryable) in table {
        let states: Vec<_> = states.iter().map(|status| (*status, 0)).collect();
        let refusal = refused(route(&holding(&states), &ask("m"), Tick(1)));
        let Refusal::Unavailable { reason, retry_after_secs } = refusal else {
            panic!("{states:?} gave {refusal:?}");
        };
        assert_eq!(reason, Unavailable::NotReady(*named), "{states:?}");
        assert_eq!(retry_after_secs.is_some(), *retryable, "{states:?}");
        // Requirement 132: clients ignore more than a minute.
        assert!(retry_after_secs.unwrap_or(0) <= 60);
    }
}

// Requirement 68
#[test]
fn two_missed_polls_change_nothing_and_three_make_the_model_unavailable_not_unknown() {
    let mut snapshot = holding(&[(Ready, 0)]);
    for _ in 0..2 {
        snapshot = observe(&snapshot, "a", missed(), Tick(1));
        forwarded(route(&snapshot, &ask("m"), Tick(1)));
    }
    snapshot = observe(&snapshot, "a", missed(), Tick(1));
    assert_eq!(snapshot.nodes[0].standing(Tick(1)), Standing::Lost);
    let (reason, retry_after_secs) = (Unavailable::NodesDown, Some(2));
    let wanted = Refusal::Unavailable { reason, retry_after_secs };
    assert_eq!(refused(route(&snapshot, &ask("m"), Tick(1))), wanted);
}

#[test]
fn one_report_brings_a_lost_node_back() {
    let mut snapshot = holding(&[(Ready, 0)]);
    for _ in 0..10 {
        snapshot = observe(&snapshot, "a", missed(), Tick(1));
    }
    let seen = Observation::Report(report(vec![model("m", Ready)], 0));
    let snapshot = observe(&snapshot, "a", seen, Tick(2));
    assert_eq!((snapshot.nodes[0].missed, &snapshot.nodes[0].fault), (0, &None));
    forwarded(route(&snapshot, &ask("m"), Tick(2)));
}

#[test]
fn a_report_goes_stale_when_polling_itself_stops() {
    let snapshot = holding(&[(Ready, 0)]);
    forwarded(route(&snapshot, &ask("m"), Tick(STALE_AFTER_MS)));
    refused(route(&snapshot, &ask("m"), Tick(STALE_AFTER_MS + 1)));
    assert!(snapshot.can_serve(Tick(STALE_AFTER_MS)));
    assert!(!snapshot.can_serve(Tick(STALE_AFTER_MS + 1)));
}

#[test]
fn a_node_that_says_it_is_unavailable_gets_nothing_and_keeps_its_models_known() {
    let mut gone = report(vec![model("m", Ready)], 0);
    gone.health.status = HealthStatus::Unavailable;
    let snapshot = observe(&fleet(&["a"]), "a", Observation::Report(gone), Tick(0));
    let Refusal::Unavailable { reason, .. } = refused(route(&snapshot, &ask("m"), Tick(1))) else {
        panic!("the model must stay known");
    };
    assert_eq!(reason, Unavailable::NodesDown);
}

#[test]
fn a_retry_goes_to_the_twin_or_says_that_there_is_none() {
    let twins = holding(&[(Ready, 0), (Ready, 9)]);
    let asked = Ask { tried: Some(0), ..ask("m") };
    assert_eq!(forwarded(route(&twins, &asked, Tick(1))).name, "b");
    let alone = holding(&[(Ready, 0)]);
    let Refusal::Unavailable { reason, .. } = refused(route(&alone, &asked, Tick(1))) else {
        panic!("the model must stay known");
    };
    assert_eq!(reason, Unavailable::NoOtherReplica);
}

#[test]
fn a_model_on_its_way_out_and_a_drained_node_get_nothing_new() {
    let twins = holding(&[(Ready, 0), (Ready, 9)]);
    let mut desk = Desk::default();
    desk.drain(0, true);
    let asked = Ask { desk: &desk, ..ask("m") };
    assert_eq!(forwarded(route(&twins, &asked, Tick(1))).name, "b");
    let alone = holding(&[(Ready, 0)]);
    let Refusal::Unavailable { reason, retry_after_secs } = refused(route(&alone, &asked, Tick(1)))
    else {
        panic!("the model must stay known");
    };
    assert_eq!((reason, retry_after_secs), (Unavailable::NotReady(Draining), Some(5)));
    desk.drain(0, false);
    forwarded(route(&alone, &Ask { desk: &desk, ..ask("m") }, Tick(1)));
}

#[test]
fn a_suspect_is_asked_last_and_still_asked() {
    let twins = holding(&[(Ready, 0), (Ready, 9)]);
    let mut outliers = Outliers::default();
    outliers.failed(0, 0, Tick(1));
    let asked = Ask { outliers: &outliers, ..ask("m") };
    assert_eq!(forwarded(route(&twins, &asked, Tick(2))).name, "b");
    forwarded(route(&holding(&[(Ready, 0)]), &asked, Tick(2)));
}

#[test]
fn a_node_that_knows_the_prompt_is_worth_a_queue_and_not_any_queue() {
    let links = [Link { digest: 7, bytes: 4096 }, Link { digest: 8, bytes: 8192 }];
    let known = |running| {
        let mut warm = report(vec![model("m", Ready)], running);
        warm.models[0].prefix_digests = vec![3, 7];
        let seen = Observation::Report(warm);
        observe(&holding(&[(Ready, 0), (Ready, 0)]), "b", seen, Tick(0))
    };
    let asked = Ask { chain: &links, ..ask("m") };
    let (close, far) = (known(1), known(3));
    assert_eq!(forwarded(route(&close, &asked, Tick(1))).name, "b");
    assert_eq!(forwarded(route(&far, &asked, Tick(1))).name, "a");
    let scores = rate(&close, &asked, Tick(1));
    assert_eq!(scores.iter().map(|(_, score)| score.affinity).collect::<Vec<_>>(), [0, 2000]);
    assert_eq!(forwarded(route(&close, &ask("m"), Tick(1))).name, "a", "without a chain");
}

#[test]
fn a_turn_that_follows_at_once_goes_where_the_first_was_sent() {
    let snapshot = holding(&[(Ready, 0), (Ready, 0)]);
    let first = [Link { digest: 3, bytes: 9_000 }];
    let second = [first[0], Link { digest: 7, bytes: 9_500 }];
    let mut desk = Desk::default();
    desk.began(1, "m", &first, Tick(10));
    desk.ended(1, "m", Tick(20));
    let asked = |chain| Ask { desk: &desk, chain, ..ask("m") };
    let chosen = forwarded(route(&snapshot, &asked(&second), Tick(30)));
    assert_eq!((chosen.name, chosen.score.affinity > 0), ("b", true));
    assert_eq!(forwarded(route(&snapshot, &asked(&second[1..]), Tick(30))).name, "a", "a stranger");
    // Whatever no report has confirmed by then is not there any more.
    assert_eq!(forwarded(route(&snapshot, &asked(&second), Tick(29_000))).name, "b");
    let late = observe(
        &snapshot,
        "a",
        Observation::Report(report(vec![model("m", Ready)], 0)),
        Tick(60_000),
    );
    let late =
        observe(&late, "b", Observation::Report(report(vec![model("m", Ready)], 0)), Tick(60_000));
    assert_eq!(forwarded(route(&late, &asked(&second), Tick(60_000))).name, "a");
}

#[test]
fn of_many_replicas_two_are_drawn_and_one_that_knows_the_prompt_is_always_seen() {
    let mut many = holding(&[(Ready, 1); 9]);
    let chosen = |snapshot: &Snapshot, chain: &[Link]| {
        let places = (0..72).map(|draw| {
            let asked = Ask { draw, chain, ..ask("m") };
            forwarded(route(snapshot, &asked, Tick(1))).node
        });
        places.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(chosen(&many, &[]).len(), 9, "each is drawn some day");
    let mut warm = report(vec![model("m", Ready)], 1);
    warm.models[0].prefix_digests = vec![7];
    many = observe(&many, "e", Observation::Report(warm), Tick(0));
    let links = [Link { digest: 7, bytes: 9000 }];
    assert_eq!(chosen(&many, &links).into_iter().collect::<Vec<_>>(), [4]);
}

#[test]
fn a_new_configuration_keeps_places_and_what_is_known() {
    let pair = |name: &str, port: u16| (name.to_owned(), format!("http://{name}:{port}"));
    let before = holding(&[(Ready, 0), (Ready, 0)]);
    let after = before.reconfigured(&[pair("c", 13131), pair("b", 13131)]);
    let names: Vec<&str> = after.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(after.nodes[0].standing(Tick(1)), Standing::Removed);
    assert!(Arc::ptr_eq(&before.nodes[1], &after.nodes[1]));
    assert_eq!(forwarded(route(&after, &ask("m"), Tick(1))).name, "b");
    let deaf = observe(&after, "a", missed(), Tick(1));
    assert_eq!(deaf.nodes[0].missed, 0, "a poll that was under way tells nothing any more");
    let back = after.reconfigured(&[pair("a", 13131), pair("b", 99)]);
    assert_eq!(back.nodes[0].standing(Tick(1)), Standing::Unseen);
    assert_eq!(back.nodes[1].standing(Tick(1)), Standing::Unseen, "it moved");
}

#[test]
fn a_discovery_is_kept_until_the_next_one() {
    let mut first = report(Vec::new(), 0);
    first.discovery = Some(Arc::new(control::Discovery { hostname: "h".into(), ..<_>::default() }));
    let snapshot = observe(&fleet(&["a"]), "a", Observation::Report(first), Tick(0));
    let later = Observation::Report(report(Vec::new(), 0));
    let snapshot = observe(&snapshot, "a", later, Tick(1));
    let kept = snapshot.nodes[0].report.as_ref().and_then(|r| r.discovery.as_ref());
    assert_eq!(kept.map(|d| d.hostname.as_str()), Some("h"));
}

#[test]
fn an_observation_of_a_stranger_changes_nothing() {
    let before = holding(&[(Ready, 0)]);
    let after = observe(&before, "stranger", missed(), Tick(1));
    assert!(Arc::ptr_eq(&before.nodes[0], &after.nodes[0]));
}

#[derive(Clone, Debug)]
enum Operation {
    Report { node: usize, models: Vec<(u8, ModelStatus)>, running: u32, serving: bool },
    Miss { node: usize },
    Wait { ms: u64 },
    Ask { model: u8, in_flight: Vec<u32>, tried: Option<usize> },
}

const NODES: usize = 4;

fn status() -> impl Strategy<Value = ModelStatus> {
    const ALL: &[ModelStatus] =
        &[Absent, Downloading, Loading, Ready, Draining, Failed, Restarting];
    prop_oneof![3 => Just(Ready), 2 => prop::sample::select(ALL)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let models = prop::collection::vec((0u8..3, status()), 0..4);
    let in_flight = prop::collection::vec(0u32..9, 0..=NODES);
    prop_oneof![
        2 => (0..NODES, models, 0u32..9, prop::bool::weighted(0.8)).prop_map(
            |(node, models, running, serving)| Operation::Report { node, models, running, serving }
        ),
        4 => (0..NODES).prop_map(|node| Operation::Miss { node }),
        1 => (0u64..STALE_AFTER_MS * 2).prop_map(|ms| Operation::Wait { ms }),
        4 => (0u8..4, in_flight, prop::option::of(0..NODES))
            .prop_map(|(model, in_flight, tried)| Operation::Ask { model, in_flight, tried }),
    ]
}

/// What the test itself remembers of a node, kept apart from the code under test.
#[derive(Clone, Default)]
struct Memory {
    last_report_ms: Option<u64>,
    misses: u32,
    serving: bool,
    first_status: Vec<(String, ModelStatus)>,
}

impl Memory {
    fn is_alive(&self, now: u64) -> bool {
        let fresh = self.last_report_ms.is_some_and(|at| now - at <= STALE_AFTER_MS);
        fresh && self.misses < 3 && self.serving
    }

    fn ready(&self, model: &str) -> bool {
        let found = self.first_status.iter().find(|(id, _)| id == model);
        found.is_some_and(|(_, status)| *status == Ready)
    }
}

fn check_ask(snapshot: &Snapshot, memory: &[Memory], ask: &Ask<'_>, now: u64) {
    let decision = route(snapshot, ask, Tick(now));
    assert_eq!(decision, route(&snapshot.clone(), ask, Tick(now)), "the same inputs, once more");
    let usable = |(place, node): (usize, &Memory)| {
        node.is_alive(now) && node.ready(ask.model) && ask.tried != Some(place)
    };
    let usable: Vec<usize> =
        memory.iter().enumerate().filter(|n| usable(*n)).map(|n| n.0).collect();
    match decision {
        Route::Forward(to) => {
            assert!(usable.contains(&to.node), "{to:?} is not alive with the model ready");
            assert_eq!(to.candidates as usize, usable.len());
            let own = |place: usize| ask.in_flight.get(place).copied().unwrap_or(0);
            assert!(to.score.load >= i64::from(own(to.node)) * 1000);
        }
        Route::Refuse(Refusal::NotFound) => {
            let known = memory.iter().any(|n| n.first_status.iter().any(|(id, _)| id == ask.model));
            assert!(!known, "a model that a node has reported is never unknown");
            let heard = memory.iter().all(|n| n.last_report_ms.is_some());
            assert!(heard, "a node that was never heard may have it");
        }
        Route::Refuse(Refusal::Unavailable { .. }) => {
            assert!(usable.is_empty(), "{usable:?} could have served");
        }
    }
}

proptest! {
    #[test]
    fn only_live_nodes_with_the_model_ready_are_chosen_and_always_the_same_way(
        operations in prop::collection::vec(operation(), 1..60)
    ) {
        let names = ["a", "b", "c", "d"];
        let mut snapshot = fleet(&names);
        let mut memory = vec![Memory::default(); NODES];
        let mut now = 0;
        for operation in operations {
            match operation {
                Operation::Report { node, models, running, serving } => {
                    let models = models.iter().map(|(id, s)| model(&id.to_string(), *s));
                    let mut seen = report(models.collect(), running);
                    if !serving { seen.health.status = HealthStatus::Unavailable; }
                    let first_status = seen.models.iter().map(|m| (m.id.clone(), m.status));
                    let first_status = first_status.collect();
                    memory[node] =
                        Memory { last_report_ms: Some(now), misses: 0, serving, first_status };
                    let seen = Observation::Report(seen);
                    snapshot = observe(&snapshot, names[node], seen, Tick(now));
                }
                Operation::Miss { node } => {
                    memory[node].misses += 1;
                    snapshot = observe(&snapshot, names[node], missed(), Tick(now));
                }
                Operation::Wait { ms } => now += ms,
                Operation::Ask { model, in_flight, tried } => {
                    let model = model.to_string();
                    let ask = Ask { in_flight: &in_flight, tried, ..ask(&model) };
                    check_ask(&snapshot, &memory, &ask, now);
                }
            }
        }
    }
}
