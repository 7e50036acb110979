//! Requirement 117: one node of ten hangs, and the others are polled as before. A program of its
//! own, so that no other test takes the processor away in one window and not in the next.

use std::time::{Duration, Instant};

use control::ModelStatus::Ready;
use testkit::fake_neuron::FakeNeuron;

#[path = "gateway/client.rs"]
#[allow(dead_code, reason = "the other tests' requests are not used here")]
mod client;

use client::{TestGateway, until};

const NODES: usize = 10;
const INTERVAL: Duration = Duration::from_millis(250);
/// Windows with the node hung and windows without, in turns, so that whatever else the machine does
/// falls on both.
const WINDOWS: usize = 12;
/// Polls of each node in a window.
const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn one_of_ten_that_hangs_moves_the_others_cadence_by_less_than_a_tenth() {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(FakeNeuron::start(&[("m", Ready)]).await);
    }
    let urls: Vec<String> = nodes.iter().map(FakeNeuron::url).collect();
    let more = format!("poll_interval_ms = {}\npoll_timeout_ms = 1000", INTERVAL.as_millis());
    let gateway = TestGateway::start(&urls, &more).await;
    gateway.until_nodes(|status| status == "ok").await;
    let others = || nodes[1..].iter().map(FakeNeuron::polls).sum::<usize>();
    // How long a round of polls takes, window by window, without and with the node hung.
    let mut seen = [Vec::new(), Vec::new()];
    for window in 0..WINDOWS {
        let is_hung = window % 2;
        nodes[0].hang(is_hung == 1);
        // The polls that were under way when it changed are over, and a round begins.
        tokio::time::sleep(INTERVAL / 2).await;
        let before = others();
        until(async || others() > before).await;
        let (first, begun) = (others(), Instant::now());
        until(async || others() >= first + ROUNDS * (NODES - 1)).await;
        seen[is_hung].push(begun.elapsed().as_secs_f64() * 1e3 / ROUNDS as f64);
    }
    let pace = seen.map(|mut paces| {
        paces.sort_by(f64::total_cmp);
        paces[paces.len() / 2]
    });
    let percent = 100.0 * (pace[1] / pace[0] - 1.0).abs();
    eprintln!("a round each {:.1} ms, {:.1} ms with one hung: {percent:.1} %", pace[0], pace[1]);
    assert!(percent < 10.0, "{pace:?}");
}
