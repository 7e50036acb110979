//! What a running cortex knows, in tables for people.

use std::io::Write;

use wire::models::Model;

use crate::Error;
use crate::view::{DeviceView, FleetView, NodeView};

/// Prints a fleet for people.
pub(crate) fn print_fleet(fleet: &FleetView, out: &mut dyn Write) -> Result<(), Error> {
    let plural = if fleet.nodes.len() == 1 { "" } else { "s" };
    writeln!(
        out,
        "cortex {}, up {} s, {} node{plural}",
        fleet.version,
        fleet.uptime_secs,
        fleet.nodes.len()
    )?;
    let nodes = fleet.nodes.iter().map(node_row).collect();
    table(&["NODE", "STATUS", "ENDPOINT", "SEEN", "OPEN", "HARDWARE", "NOTE"], nodes, out)?;
    let devices = fleet.nodes.iter().flat_map(|n| n.devices.iter().map(|d| device_row(n, d)));
    table(&["DEVICE", "NAME", "VRAM MB", "LOAD", "TEMP"], devices.collect(), out)?;
    let models = fleet.nodes.iter().flat_map(model_rows).collect();
    let head = ["MODEL", "NODE", "STATUS", "CONTEXT", "RUNNING", "WAITING", "KV FREE", "TOK/S"];
    table(&head, models, out)
}

/// Prints models for people.
pub(crate) fn print_models(models: &[Model], out: &mut dyn Write) -> Result<(), Error> {
    let row = |model: &Model| {
        let places: Vec<String> =
            model.locations.iter().map(|l| format!("{} ({})", l.node, l.status)).collect();
        vec![
            model.id.clone(),
            if model.loaded == Some(true) { "yes" } else { "no" }.to_owned(),
            model.max_model_len.map_or("-".to_owned(), |n| n.to_string()),
            model.capabilities.join(","),
            places.join(", "),
        ]
    };
    let rows = models.iter().map(row).collect();
    table(&["MODEL", "LOADED", "CONTEXT", "CAPABILITIES", "NODES"], rows, out)
}

fn node_row(node: &NodeView) -> Vec<String> {
    let cpu = node.cpu_cores.map(|cores| format!("{cores} cores"));
    let gpus = (!node.devices.is_empty()).then(|| format!("{} GPU", node.devices.len()));
    let memory = node.memory_total_mb.zip(node.memory_free_mb);
    let memory = memory.map(|(total, free)| format!("{free} of {total} MiB free"));
    let hardware: Vec<String> = gpus.into_iter().chain(cpu).chain(memory).collect();
    let seen =
        node.seen_ms_ago.map_or("never".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1e3));
    let missed = node.fault.as_ref().map(|why| format!("{} missed: {why}", node.missed_polls));
    let drained = node.is_drained.then(|| "drained".to_owned());
    let suspect = node.is_suspect.then(|| "failed requests of late".to_owned());
    let note: Vec<String> = [drained, suspect, missed].into_iter().flatten().collect();
    let note = note.join("; ");
    let (name, status) = (node.name.clone(), node.status.clone());
    let open = node.in_flight.to_string();
    vec![name, status, node.endpoint.clone(), seen, open, hardware.join(", "), note]
}

fn device_row(node: &NodeView, device: &DeviceView) -> Vec<String> {
    vec![
        format!("{}:{}", node.name, device.index),
        device.name.clone().unwrap_or_default(),
        format!("{}/{}", device.vram_used_mb, device.vram_used_mb + device.vram_free_mb),
        format!("{} %", device.utilization_pct),
        format!("{} C", device.temp_c),
    ]
}

fn model_rows(node: &NodeView) -> Vec<Vec<String>> {
    let row = |model: &crate::view::ModelView| {
        vec![
            model.id.clone(),
            node.name.clone(),
            model.status.clone(),
            model.context.to_string(),
            model.running.to_string(),
            model.waiting.to_string(),
            format!("{}/{}", model.kv_blocks_free, model.kv_blocks_total),
            format!("{:.1}", model.tok_s_decode),
        ]
    };
    node.models.iter().map(row).collect()
}

/// Columns as wide as their widest cell; nothing when there are no rows.
pub(crate) fn table(
    head: &[&str],
    rows: Vec<Vec<String>>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).map(|column| width(column).unwrap_or(0)).collect();
    writeln!(out)?;
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        let rows = vec![vec!["long name".to_owned(), "1".to_owned()], vec![String::new(); 2]];
        table(&["A", "B"], rows, &mut out).expect("memory does not fail");
        table(&["A"], Vec::new(), &mut out).expect("memory does not fail");
        assert_eq!(String::from_utf8_lossy(&out), "\nA          B\nlong name  1\n\n");
    }
}
