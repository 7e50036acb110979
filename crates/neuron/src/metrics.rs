//! `GET /metrics`, in Prometheus' text format.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use control::ModelStatus;
use engine::{ByTier, CacheCounts};
use http::header;

use crate::app::App;
use crate::models::served::{Served, View};

/// One metric with a value per model. Label values are ids of models on this node, never what a
/// caller made up.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&View, usize) -> f64,
}

const METRICS: [Metric; 16] = [
    counter("neuron_prompt_tokens_total", "Prompt tokens computed.", |v, _| {
        v.steps.prompt_tokens as f64
    }),
    counter(
        "neuron_cached_prompt_tokens_total",
        "Prompt tokens out of the prefix cache.",
        |v, _| v.steps.cached_tokens as f64,
    ),
    counter(
        "neuron_prefix_cache_looked_up_tokens_total",
        "Prompt tokens that the prefix cache was asked for.",
        |v, _| v.steps.gauges.cache.looked_up_tokens as f64,
    ),
    gauge("neuron_prefix_cache_on", "1 when requests reuse what others computed.", |v, _| {
        let on = v.info.as_ref().is_some_and(|info| info.prefix_cache.off.is_none());
        f64::from(u8::from(on))
    }),
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

/// One metric with a value per model and tier of its prefix cache.
struct TierMetric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&CacheCounts) -> ByTier,
}

const TIER_METRICS: [TierMetric; 3] = [
    TierMetric {
        name: "neuron_prefix_cache_hit_tokens_total",
        kind: "counter",
        help: "Prompt tokens found in the prefix cache, by where they lay.",
        value: |counts| counts.hit_tokens,
    },
    TierMetric {
        name: "neuron_prefix_cache_evictions_total",
        kind: "counter",
        help: "Blocks and states that had to leave a tier of the prefix cache.",
        value: |counts| counts.evictions,
    },
    TierMetric {
        name: "neuron_prefix_cache_bytes",
        kind: "gauge",
        help: "Bytes that the prefix cache keeps.",
        value: |counts| counts.bytes,
    },
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
    for metric in &TIER_METRICS {
        header_lines(text, metric.name, metric.kind, metric.help);
        for served in models {
            let ByTier { device, host } = (metric.value)(&served.view().steps.gauges.cache);
            for (tier, value) in [("device", device), ("host", host)] {
                let (name, model) = (metric.name, &served.id);
                let _ = writeln!(text, "{name}{{model=\"{model}\",tier=\"{tier}\"}} {value}");
            }
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
