//! `[traces]`: where the spans of requests go.

use serde::Deserialize;

/// `[traces]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spans {
    /// An OpenTelemetry collector that takes OTLP over HTTP, for example `http://127.0.0.1:4318`;
    /// without it nothing is traced.
    pub endpoint: Option<String>,
    /// The share of requests that are traced, of those that come without a `traceparent`.
    pub share: f64,
}

impl Default for Spans {
    fn default() -> Spans {
        Spans { endpoint: None, share: 1.0 }
    }
}

impl Spans {
    /// What types alone cannot say.
    pub(super) fn check(&self) -> Result<(), String> {
        let share = self.share;
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("traces.share is {share}; give it 0 to 1"));
        }
        match &self.endpoint {
            Some(endpoint) if !endpoint.starts_with("http://") => Err(format!(
                "traces.endpoint is `{endpoint}`; write http://HOST:PORT, and let a collector on \
                 this host speak TLS to others"
            )),
            _ => Ok(()),
        }
    }

    /// Starts to trace, where that is wanted.
    ///
    /// # Errors
    /// When the endpoint is no URL.
    pub(crate) fn start(&self) -> Result<Option<traces::Traces>, traces::BuildError> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let (name, version) = ("cortex", env!("CARGO_PKG_VERSION"));
        let service = traces::Service { name, version, endpoint, share: self.share };
        traces::Traces::start(service).map(Some)
    }
}
