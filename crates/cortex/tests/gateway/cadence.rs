//! Requirement 117: one node of ten hangs, and the others are polled as before.

use std::time::{Duration, Instant};

use control::ModelStatus::Ready;
use testkit::fake_neuron::FakeNeuron;

use crate::client::TestGateway;

const NODES: usize = 10;
/// Windows with the node hung and windows without, in turns, so that whatever else the machine does
/// falls on both.
const WINDOWS: usize = 12;
const WINDOW: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn one_of_ten_that_hangs_moves_the_others_cadence_by_less_than_a_tenth() {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(FakeNeuron::start(&[("m", Ready)]).await);
    }
    let urls: Vec<String> = nodes.iter().map(FakeNeuron::url).collect();
    let gateway = TestGateway::start(&urls, "poll_timeout_ms = 300").await;
    gateway.until_nodes(|status| status == "ok").await;
    let others = || nodes[1..].iter().map(FakeNeuron::polls).sum::<usize>();
    // Polls and seconds, without and with the node hung.
    let mut seen = [(0.0, 0.0); 2];
    for window in 0..WINDOWS {
        let is_hung = window % 2;
        nodes[0].hang(is_hung == 1);
        // The polls that were under way when it changed are over.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (before, begun) = (others(), Instant::now());
        tokio::time::sleep(WINDOW).await;
        seen[is_hung].0 += (others() - before) as f64;
        seen[is_hung].1 += begun.elapsed().as_secs_f64();
    }
    let pace = seen.map(|(polls, secs)| polls / secs / (NODES - 1) as f64);
    let moved = (pace[1] / pace[0] - 1.0).abs();
    let percent = 100.0 * moved;
    eprintln!("{:.2} polls a second before, {:.2} with one hung: {percent:.1} %", pace[0], pace[1]);
    assert!(moved < 0.1, "{pace:?}");
}
