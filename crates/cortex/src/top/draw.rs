//! The screen, from what was seen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Table};

use super::Seen;
use crate::view::{DeviceView, FleetView, NodeView};

pub(super) fn draw(frame: &mut Frame<'_>, seen: &Seen, url: &str) {
    let fleet = match seen {
        Seen::Fleet(fleet) => fleet,
        Seen::Nothing(why) => {
            let text = Paragraph::new(vec![Line::from(why.as_str()), Line::from("q leaves")]);
            return frame.render_widget(text.block(Block::bordered().title(url)), frame.area());
        }
    };
    let devices = fleet.nodes.iter().map(|node| node.devices.len()).sum::<usize>();
    let heights = [
        Constraint::Length(1),
        Constraint::Length(rows(fleet.nodes.len())),
        Constraint::Length(rows(devices)),
        Constraint::Min(3),
    ];
    let [head, nodes, gauges, models] = Layout::vertical(heights).areas(frame.area());
    frame.render_widget(headline(fleet), head);
    frame.render_widget(node_table(fleet), nodes);
    draw_devices(frame, gauges, fleet);
    frame.render_widget(model_table(fleet), models);
}

/// A table of so many rows with its frame and head.
fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX).saturating_add(if count == 0 { 0 } else { 3 })
}

fn headline(fleet: &FleetView) -> Paragraph<'static> {
    let models = fleet.nodes.iter().flat_map(|node| &node.models);
    let (running, waiting, speed) = models.fold((0, 0, 0.0), |sum, model| {
        (sum.0 + model.running, sum.1 + model.waiting, sum.2 + model.tok_s_decode)
    });
    let up = fleet.nodes.iter().filter(|node| node.status == "ok").count();
    Paragraph::new(format!(
        "cortex {}, up {} s | {up} of {} nodes | {running} running, {waiting} waiting | \
         {speed:.1} tok/s | q leaves",
        fleet.version,
        fleet.uptime_secs,
        fleet.nodes.len()
    ))
}

fn table<const N: usize>(
    title: &'static str,
    head: [&'static str; N],
    widths: [u16; N],
    rows: Vec<Row<'static>>,
) -> Table<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Table::new(rows, widths.map(Constraint::Min))
        .header(Row::new(head).style(bold))
        .block(Block::bordered().title(title))
}

fn colour(status: &str) -> Style {
    Style::new().fg(match status {
        "ok" | "ready" => Color::Green,
        "lost" | "failed" | "unavailable" => Color::Red,
        _ => Color::Yellow,
    })
}

fn node_table(fleet: &FleetView) -> Table<'static> {
    let row = |node: &NodeView| {
        let seen = node.seen_ms_ago.map_or("never".to_owned(), |ms| format!("{ms} ms"));
        Row::new([
            Cell::from(node.name.clone()),
            Cell::from(node.status.clone()).style(colour(&node.status)),
            Cell::from(seen),
            Cell::from(node.in_flight.to_string()),
            Cell::from(node.fault.clone().unwrap_or_else(|| node.endpoint.clone())),
        ])
    };
    let rows = fleet.nodes.iter().map(row).collect();
    table("nodes", ["NODE", "STATUS", "SEEN", "OPEN", "WHERE"], [14, 12, 10, 6, 30], rows)
}

fn draw_devices(frame: &mut Frame<'_>, area: Rect, fleet: &FleetView) {
    let block = Block::bordered().title("devices");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let all = fleet.nodes.iter().flat_map(|node| node.devices.iter().map(move |d| (node, d)));
    for ((node, device), line) in all.zip(inner.rows()) {
        frame.render_widget(gauge(node, device), line);
    }
}

/// A bar of the memory in use.
fn gauge(node: &NodeView, device: &DeviceView) -> Gauge<'static> {
    let total = device.vram_used_mb + device.vram_free_mb;
    let share = device.vram_used_mb as f64 / total.max(1) as f64;
    let label = format!(
        "{}:{} {} {}/{total} MB, load {} %, {} C",
        node.name,
        device.index,
        device.name.as_deref().unwrap_or_default(),
        device.vram_used_mb,
        device.utilization_pct,
        device.temp_c
    );
    Gauge::default().ratio(share.clamp(0.0, 1.0)).label(label).gauge_style(Color::Blue)
}

fn model_table(fleet: &FleetView) -> Table<'static> {
    let mut rows = Vec::new();
    for node in &fleet.nodes {
        for model in &node.models {
            rows.push(Row::new([
                Cell::from(model.id.clone()),
                Cell::from(node.name.clone()),
                Cell::from(model.status.clone()).style(colour(&model.status)),
                Cell::from(model.running.to_string()),
                Cell::from(model.waiting.to_string()),
                Cell::from(format!("{}/{}", model.kv_blocks_free, model.kv_blocks_total)),
                Cell::from(format!("{:.1}", model.tok_s_decode)),
            ]));
        }
    }
    let head = ["MODEL", "NODE", "STATUS", "RUNNING", "WAITING", "KV FREE", "TOK/S"];
    table("models", head, [24, 14, 12, 8, 8, 12, 8], rows)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn screen(seen: &Seen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(110, 20)).expect("in memory");
        terminal.draw(|frame| draw(frame, seen, "http://h:1")).expect("in memory");
        terminal.backend().to_string()
    }

    #[test]
    fn the_whole_fleet_is_on_the_screen() {
        let fleet = serde_json::json!({"version": "1", "uptime_secs": 5, "nodes": [{
            "name": "box", "endpoint": "http://10.0.0.5:13131", "status": "ok", "seen_ms_ago": 80,
            "missed_polls": 0, "fault": null, "in_flight": 2, "hostname": "h", "cpu_cores": 8,
            "draining": false,
            "devices": [{"index": 0, "name": "H200", "vram_used_mb": 30, "vram_free_mb": 70,
                "utilization_pct": 55, "temp_c": 61}],
            "models": [{"id": "qwen", "status": "ready", "harness": "native", "context": 4096,
                "running": 2, "waiting": 1, "kv_blocks_free": 10, "kv_blocks_total": 40,
                "tok_s_decode": 165.25, "prefix_hit_rate": null, "error": null}]}]});
        let fleet: FleetView = serde_json::from_value(fleet).expect("a view");
        let shown = screen(&Seen::Fleet(Box::new(fleet)));
        for wanted in ["1 of 1 nodes", "box", "H200 30/100 MB", "qwen", "10/40", "165.2", "80 ms"] {
            assert!(shown.contains(wanted), "{wanted} is not on\n{shown}");
        }
    }

    #[test]
    fn a_cortex_that_does_not_answer_is_said_to() {
        let shown = screen(&Seen::Nothing("no answer: refused".to_owned()));
        assert!(shown.contains("no answer: refused") && shown.contains("http://h:1"), "{shown}");
    }
}
