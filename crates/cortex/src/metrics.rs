//! Prometheus metrics of the gateway, each named once, here.
//!
//! Labels are bounded: routes are ours, models are those that a node was found for and at most
//! [`MODELS_LIMIT`] of them, the rest count as `other`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dialog::Usage;

use crate::record::End;

const MODELS_LIMIT: usize = 200;
const TTFT_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const DURATION_BUCKETS: &[f64] =
    &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

const BETWEEN_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0];

/// How a request ended.
pub(crate) struct Ended<'a> {
    pub route: &'static str,
    /// None where no node was found for it.
    pub model: Option<&'a str>,
    pub key: Option<&'a str>,
    pub status: u16,
    pub end: End,
    pub took: Duration,
    /// To the first word of a stream.
    pub first_token: Option<Duration>,
    /// From one token to the next, on average over a stream.
    pub between: Option<Duration>,
    pub usage: Usage,
}

/// Counted by all requests.
#[derive(Default)]
pub(crate) struct Metrics {
    in_flight: AtomicI64,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    models: BTreeSet<String>,
    requests: BTreeMap<(&'static str, String, u16), u64>,
    errors: BTreeMap<(&'static str, &'static str), u64>,
    ttft: BTreeMap<String, Histogram>,
    between: BTreeMap<String, Histogram>,
    /// By model and kind.
    tokens: BTreeMap<(String, &'static str), u64>,
    /// By key: requests and tokens. Keys are the operator's, so there are few.
    keys: BTreeMap<String, (u64, u64)>,
    duration: BTreeMap<String, Histogram>,
    /// Loads that ended well, and others.
    loads: [u64; 2],
    evictions: u64,
}

struct Histogram {
    bounds: &'static [f64],
    /// One a bound, and one past the last.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn add(&mut self, value: f64) {
        let slot = self.bounds.partition_point(|bound| *bound < value);
        self.counts[slot] += 1;
        self.sum += value;
    }
}

impl Metrics {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, ended: &Ended<'_>) {
        let Ended { route, status, end, took, first_token, usage, .. } = *ended;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let mut counts = self.counts();
        let model = counts.label(ended.model);
        *counts.requests.entry((route, model.clone(), status)).or_default() += 1;
        counts.use_up(&model, ended.key, usage);
        if let Some(between) = ended.between {
            let histogram = counts.between.entry(model.clone());
            let histogram = histogram.or_insert_with(|| Histogram::new(BETWEEN_BUCKETS));
            histogram.add(between.as_secs_f64());
        }
        if end != End::Complete {
            *counts.errors.entry((route, end.word())).or_default() += 1;
        }
        if let Some(ttft) = first_token {
            let histogram = counts.ttft.entry(model.clone());
            histogram.or_insert_with(|| Histogram::new(TTFT_BUCKETS)).add(ttft.as_secs_f64());
        }
        let histogram = counts.duration.entry(model);
        histogram.or_insert_with(|| Histogram::new(DURATION_BUCKETS)).add(took.as_secs_f64());
    }

    /// A load that this gateway ordered has ended.
    pub(crate) fn loaded(&self, is_well: bool) {
        self.counts().loads[usize::from(!is_well)] += 1;
    }

    /// A model has made room for another one.
    pub(crate) fn evicted(&self) {
        self.counts().evictions += 1;
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let open = self.in_flight.load(Ordering::Relaxed);
        head(&mut out, "cortex_requests_in_flight", "gauge", "Inference requests that are open.");
        line(&mut out, "cortex_requests_in_flight", "", open as f64);
        let counts = self.counts();
        head(&mut out, "cortex_requests_total", "counter", "Inference requests that ended.");
        for ((route, model, status), count) in &counts.requests {
            let model = escaped(model);
            let labels = format!("route=\"{route}\",model=\"{model}\",status=\"{status}\"");
            line(&mut out, "cortex_requests_total", &labels, *count as f64);
        }
        head(&mut out, "cortex_errors_total", "counter", "Requests that ended otherwise, by why.");
        for ((route, why), count) in &counts.errors {
            let labels = format!("route=\"{route}\",why=\"{why}\"");
            line(&mut out, "cortex_errors_total", &labels, *count as f64);
        }
        head(&mut out, "cortex_loads_total", "counter", "Loads that were ordered here, by end.");
        for (end, count) in ["loaded", "failed"].iter().zip(counts.loads) {
            line(&mut out, "cortex_loads_total", &format!("end=\"{end}\""), count as f64);
        }
        let about = "Models that made room for others.";
        head(&mut out, "cortex_evictions_total", "counter", about);
        line(&mut out, "cortex_evictions_total", "", counts.evictions as f64);
        let about = "From a request's arrival to its first generated text, streams only.";
        histograms(&mut out, "cortex_ttft_seconds", about, &counts.ttft);
        let about = "From one token of a stream to the next, on average over the stream.";
        histograms(&mut out, "cortex_inter_token_seconds", about, &counts.between);
        counts.render_use(&mut out);
        let about = "From a request's arrival to its last byte.";
        histograms(&mut out, "cortex_request_duration_seconds", about, &counts.duration);
        out
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counters have no invariant that a panic could break.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn use_up(&mut self, model: &str, key: Option<&str>, usage: Usage) {
        let Usage { prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens } = usage;
        for (kind, count) in [
            ("prompt", prompt_tokens),
            ("cached", cached_tokens),
            ("completion", completion_tokens),
            ("reasoning", reasoning_tokens),
        ] {
            if count > 0 {
                *self.tokens.entry((model.to_owned(), kind)).or_default() += u64::from(count);
            }
        }
        let Some(key) = key else { return };
        if !self.keys.contains_key(key) {
            self.keys.insert(key.to_owned(), (0, 0));
        }
        if let Some((requests, tokens)) = self.keys.get_mut(key) {
            *requests += 1;
            *tokens += u64::from(prompt_tokens) + u64::from(completion_tokens);
        }
    }

    fn render_use(&self, out: &mut String) {
        let about = "Tokens by kind; cached and reasoning are parts of prompt and completion.";
        head(out, "cortex_tokens_total", "counter", about);
        for ((model, kind), count) in &self.tokens {
            let labels = format!("model=\"{}\",kind=\"{kind}\"", escaped(model));
            line(out, "cortex_tokens_total", &labels, *count as f64);
        }
        head(out, "cortex_key_requests_total", "counter", "Inference requests by key.");
        for (key, (requests, _)) in &self.keys {
            line(out, "cortex_key_requests_total", &format!("key=\"{key}\""), *requests as f64);
        }
        head(out, "cortex_key_tokens_total", "counter", "Prompt and generated tokens by key.");
        for (key, (_, tokens)) in &self.keys {
            line(out, "cortex_key_tokens_total", &format!("key=\"{key}\""), *tokens as f64);
        }
    }

    fn label(&mut self, model: Option<&str>) -> String {
        let Some(model) = model else { return String::new() };
        if !self.models.contains(model) {
            if self.models.len() >= MODELS_LIMIT {
                return "other".to_owned();
            }
            self.models.insert(model.to_owned());
        }
        model.to_owned()
    }
}

fn histograms(out: &mut String, name: &str, about: &str, all: &BTreeMap<String, Histogram>) {
    head(out, name, "histogram", about);
    for (model, histogram) in all {
        let model = escaped(model);
        let mut below = 0;
        for (slot, count) in histogram.counts.iter().enumerate() {
            below += count;
            let bound = histogram.bounds.get(slot).map_or("+Inf".to_owned(), f64::to_string);
            let labels = format!("model=\"{model}\",le=\"{bound}\"");
            line(out, &format!("{name}_bucket"), &labels, below as f64);
        }
        let labels = format!("model=\"{model}\"");
        line(out, &format!("{name}_sum"), &labels, histogram.sum);
        line(out, &format!("{name}_count"), &labels, below as f64);
    }
}

fn head(out: &mut String, name: &str, kind: &str, about: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: f64) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        _ => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

pub(crate) fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dialog::Usage;

    use super::{Ended, MODELS_LIMIT, Metrics};
    use crate::record::End;

    const ROUTE: &str = "/v1/chat/completions";

    fn ended(metrics: &Metrics, model: &str, ttft_ms: Option<u64>) {
        metrics.begin();
        let ttft = ttft_ms.map(Duration::from_millis);
        metrics.end(&Ended {
            route: ROUTE,
            model: Some(model),
            key: Some("ann"),
            status: 200,
            end: End::Complete,
            took: Duration::from_secs(1),
            first_token: ttft,
            between: None,
            usage: Usage { prompt_tokens: 7, completion_tokens: 2, ..Usage::default() },
        });
    }

    // Requirement 93
    #[test]
    fn a_histogram_has_explicit_cumulative_buckets() {
        let metrics = Metrics::default();
        for ms in [5, 6, 70_000] {
            ended(&metrics, "m", Some(ms));
        }
        let text = metrics.render();
        for wanted in [
            "cortex_ttft_seconds_bucket{model=\"m\",le=\"0.005\"} 1\n",
            "cortex_ttft_seconds_bucket{model=\"m\",le=\"0.01\"} 2\n",
            "cortex_ttft_seconds_bucket{model=\"m\",le=\"60\"} 2\n",
            "cortex_ttft_seconds_bucket{model=\"m\",le=\"+Inf\"} 3\n",
            "cortex_ttft_seconds_count{model=\"m\"} 3\n",
            "cortex_requests_in_flight 0\n",
            "cortex_tokens_total{model=\"m\",kind=\"prompt\"} 21\n",
            "cortex_key_tokens_total{key=\"ann\"} 27\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }

    #[test]
    fn labels_are_bounded_and_escaped() {
        let metrics = Metrics::default();
        ended(&metrics, "a\"b\\c\nd", None);
        for model in 0..MODELS_LIMIT + 50 {
            ended(&metrics, &model.to_string(), None);
        }
        let text = metrics.render();
        assert!(text.contains("model=\"a\\\"b\\\\c\\nd\""), "{text}");
        assert!(text.contains("model=\"other\",status=\"200\"} 51\n"), "{text}");
    }
}
