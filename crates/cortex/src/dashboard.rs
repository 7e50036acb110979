//! The dashboard in `packaging/grafana` asks for metrics that there are, and for all of them.

use std::collections::BTreeSet;

use fleet::{Snapshot, Tick};

use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::{gauges, prefix_cache};

const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/grafana/cortex.json");

fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = words.filter(|word| word.starts_with("cortex_"));
    let plain = metrics.map(|word| word.trim_end_matches("_bucket").to_owned());
    plain.collect()
}

fn exported() -> BTreeSet<String> {
    let mut text = Metrics::default().render();
    prefix_cache::render(&mut text, &Snapshot::unseen([]));
    gauges::render(&mut text, &Snapshot::unseen([]), Tick(0));
    Ledger::default().render(&mut text);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn asked() -> BTreeSet<String> {
    let text = std::fs::read_to_string(DASHBOARD).expect("the dashboard is in the repository");
    let board: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = board["panels"].as_array().expect("a list");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("a list"));
    targets.flat_map(|target| named(target["expr"].as_str().expect("a text"))).collect()
}

#[test]
fn the_dashboard_and_the_metrics_have_the_same_names() {
    let (asked, exported) = (asked(), exported());
    let missing: Vec<_> = asked.difference(&exported).collect();
    assert!(missing.is_empty(), "the dashboard asks for what nobody exports: {missing:?}");
    let unseen: Vec<_> = exported.difference(&asked).collect();
    assert!(unseen.is_empty(), "packaging/grafana/cortex.json does not show {unseen:?}");
}
