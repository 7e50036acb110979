//! What the nodes say of themselves, passed on for one scrape of the whole fleet.

use std::fmt::Write;

use control::{DeviceHealth, ModelHealth};
use fleet::{Node, Snapshot, Standing, Tick};

use crate::metrics::escaped;

/// A gauge of a device: name, help, reading.
type OfDevice = (&'static str, &'static str, fn(&DeviceHealth) -> f64);
/// A gauge of a model: name, help, reading.
type OfModel = (&'static str, &'static str, fn(&ModelHealth) -> f64);

const DEVICES: [OfDevice; 5] = [
    ("cortex_device_vram_used_mb", "Memory in use on a device.", |it| it.vram_used_mb as f64),
    ("cortex_device_vram_free_mb", "Memory free on a device.", |it| it.vram_free_mb as f64),
    ("cortex_device_utilization_pct", "Load of a device.", |it| f64::from(it.utilization_pct)),
    ("cortex_device_temperature_celsius", "Heat of a device.", |it| f64::from(it.temp_c)),
    ("cortex_device_power_watts", "Power of a device.", |it| f64::from(it.power_w)),
];

const MODELS: [OfModel; 5] = [
    ("cortex_model_running", "Requests that a model answers.", |it| f64::from(it.running)),
    ("cortex_model_waiting", "Requests that wait for a model.", |it| f64::from(it.waiting)),
    ("cortex_model_kv_blocks_free", "Free KV blocks.", |it| f64::from(it.kv_blocks_free)),
    ("cortex_model_kv_blocks_total", "All KV blocks.", |it| f64::from(it.kv_blocks_total)),
    ("cortex_model_decode_tokens_per_second", "Speed of decoding.", |it| it.tok_s_decode),
];

/// The gauges of all nodes, as they last reported.
pub(crate) fn render(out: &mut String, snapshot: &Snapshot, now: Tick) {
    head(out, "cortex_node_up", "Whether a node answers polls and serves.");
    for node in snapshot.nodes.iter().filter(|node| !node.is_removed) {
        let up = i32::from(node.standing(now) == Standing::Alive);
        // Writing to a String does not fail.
        let _ = writeln!(out, "cortex_node_up{{node=\"{}\"}} {up}", node.name);
    }
    for (name, help, read) in DEVICES {
        head(out, name, help);
        for (node, device) in each(snapshot, |report| &report.health.devices) {
            let (node, index, value) = (&node.name, device.index, read(device));
            let _ = writeln!(out, "{name}{{node=\"{node}\",device=\"{index}\"}} {value}");
        }
    }
    for (name, help, read) in MODELS {
        head(out, name, help);
        for (node, model) in each(snapshot, |report| &report.health.models) {
            let (node, id, value) = (&node.name, escaped(&model.id), read(model));
            let _ = writeln!(out, "{name}{{node=\"{node}\",model=\"{id}\"}} {value}");
        }
    }
}

fn each<'a, T: 'a>(
    snapshot: &'a Snapshot,
    of: impl Fn(&'a fleet::NodeReport) -> &'a Vec<T>,
) -> impl Iterator<Item = (&'a Node, &'a T)> {
    // A node that is configured no more has no report.
    snapshot.nodes.iter().flat_map(move |node| {
        let all = node.report.as_deref().map(&of).into_iter().flatten();
        all.map(move |one| (&**node, one))
    })
}

fn head(out: &mut String, name: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
}
