//! `GET /metrics`, in Prometheus' text format.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use control::ModelStatus;
use http::header;

use crate::app::App;
use crate::served::{Served, View};

/// One metric with a value per model. Label values are ids of models on this node, never what a
/// caller made up.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&View, usize) -> f64,
}

const METRICS: [Metric; 14] = [
    counter("neuron_prompt_tokens_total", "Prompt tokens computed.", |v, _| {
        v.steps.prompt_tokens as f64
    }),
    counter(
        "neuron_cached_prompt_tokens_total",
        "Prompt tokens out of the prefix cache.",
        |v, _| v.steps.cached_tokens as f64,
    ),
    counter("neuron_generated_tokens_total", "Tokens generated.", |v, _| {
        v.steps.generated_tokens as f64
    }),
    counter("neuron_steps_total", "Engine steps.", |v, _| v.steps.steps as f64),
    counter("neuron_engine_restarts_total", "Engines started again after a death.", |v, _| {
        f64::from(v.restarts)
    }),
    gauge("neuron_model_ready", "1 when the model answers.", |v, _| {
        f64::from(u8::from(v.status == ModelStatus::Ready))
    }),
    gauge("neuron_live_requests", "Requests not yet ended.", |_, live| live as f64),
    gauge("neuron_running_requests", "Requests in the last step.", |v, _| {
        v.steps.gauges.running.into()
    }),
    gauge("neuron_waiting_requests", "Requests not yet begun.", |v, _| {
        v.steps.gauges.waiting.into()
    }),
    gauge("neuron_kv_blocks_free", "KV blocks that no request holds.", |v, _| {
        v.steps.gauges.kv_blocks_free.into()
    }),
    gauge("neuron_kv_blocks", "All KV blocks.", |v, _| {
        v.info.as_ref().map_or(0.0, |info| info.kv_blocks.into())
    }),
    gauge("neuron_state_slots_free", "State slots that no request holds.", |v, _| {
        v.steps.gauges.state_slots_free.into()
    }),
    gauge("neuron_prefill_tokens_per_second", "Over the last seconds of work.", |v, _| {
        v.steps.prefill.per_second()
    }),
    gauge("neuron_decode_tokens_per_second", "Over the last seconds of work.", |v, _| {
        v.steps.decode.per_second()
    }),
];

const fn counter(name: &'static str, help: &'static str, value: fn(&View, usize) -> f64) -> Metric {
    Metric { name, kind: "counter", help, value }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&View, usize) -> f64) -> Metric {
    Metric { name, kind: "gauge", help, value }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let mut text = String::new();
    let uptime = app.started.elapsed().as_secs();
    header_lines(&mut text, "neuron_uptime_seconds", "gauge", "Since the daemon started.");
    let _ = writeln!(text, "neuron_uptime_seconds {uptime}");
    render(&mut text, &app.models.list());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn header_lines(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn render(text: &mut String, models: &[Arc<Served>]) {
    for metric in &METRICS {
        header_lines(text, metric.name, metric.kind, metric.help);
        for served in models {
            let live = served.live.count();
            let value = (metric.value)(&served.view(), live);
            let _ = writeln!(text, "{}{{model=\"{}\"}} {value}", metric.name, served.id);
        }
    }
    let name = "neuron_requests_total";
    header_lines(text, name, "counter", "Inference requests by how they ended.");
    for served in models {
        let counts = served.view().requests;
        for (outcome, count) in [
            ("completed", counts.completed),
            ("refused", counts.refused),
            ("failed", counts.failed),
            ("cancelled", counts.cancelled),
        ] {
            let model = &served.id;
            let _ = writeln!(text, "{name}{{model=\"{model}\",outcome=\"{outcome}\"}} {count}");
        }
    }
}
