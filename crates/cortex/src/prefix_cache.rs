//! What the nodes say of their prefix caches, passed on for one scrape of the whole fleet.

use std::fmt::Write;

use fleet::Snapshot;

use crate::metrics::escaped;

/// The metrics of all models on all nodes, as they last reported.
pub(crate) fn render(out: &mut String, snapshot: &Snapshot) {
    let looked_up = "Prompt tokens that the nodes' prefix caches were asked for.";
    let hit = "Prompt tokens that the nodes' prefix caches supplied.";
    for (name, help, value) in [
        (
            "cortex_node_prefix_looked_up_tokens_total",
            looked_up,
            (|model| model.prefix_looked_up_tokens) as fn(&control::ModelHealth) -> u64,
        ),
        ("cortex_node_prefix_hit_tokens_total", hit, |model| model.prefix_hit_tokens),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for node in &snapshot.nodes {
            let reported = node.report.as_deref().map_or(&[][..], |r| &r.health.models);
            for model in reported {
                let (node, id, value) = (&node.name, escaped(&model.id), value(model));
                let _ = writeln!(out, "{name}{{node=\"{node}\",model=\"{id}\"}} {value}");
            }
        }
    }
}
