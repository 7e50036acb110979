//! One request's way through the gateway and a node, as OpenTelemetry spans.
//!
//! Spans go to a collector by OTLP over HTTP, in batches, from a thread of their own. Programs that
//! are not configured to trace make no [`Traces`], and then nothing here runs. What ties the spans
//! of a request together is the `traceparent` header of W3C Trace Context.
#![forbid(unsafe_code)]

mod collector;
mod parent;

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use collector::Collector;
pub use parent::{HEADER, Parent};

/// How long the last spans may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The collector cannot be used: the operator names another one.
#[derive(Debug, thiserror::Error)]
#[error("cannot send traces to {endpoint}: {problem}")]
pub struct BuildError {
    endpoint: String,
    problem: String,
}

/// What a program says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// `cortex` or `neuron`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The collector's base URL, for example `http://127.0.0.1:4318`.
    pub endpoint: &'a str,
    /// Which share of the requests is traced that come without a `traceparent`, 0 to 1; those with
    /// one are traced as it says.
    pub share: f64,
}

/// A part of a request that has begun and not ended. Dropped, it ends.
#[derive(Debug)]
pub struct Span {
    span: opentelemetry_sdk::trace::Span,
    context: Context,
    tracer: SdkTracer,
}

impl Traces {
    /// Starts the thread that sends spans.
    ///
    /// # Errors
    /// [`BuildError`] when the endpoint is no URL.
    pub fn start(service: Service<'_>) -> Result<Traces, BuildError> {
        let endpoint = format!("{}/v1/traces", service.endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&endpoint)
            .build()
            .map_err(|error| BuildError { endpoint, problem: error.to_string() })?;
        let resource = Resource::builder_empty()
            .with_service_name(service.name)
            .with_attribute(KeyValue::new("service.version", service.version))
            .build();
        let root = Sampler::TraceIdRatioBased(service.share);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer(service.name);
        Ok(Traces { provider, tracer })
    }

    /// Begins the span of a request that has just come.
    #[must_use]
    pub fn begin(&self, name: &'static str, parent: Option<&Parent>) -> Span {
        let context = parent.map_or_else(Context::new, Parent::context);
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server);
        let span = builder.start_with_context(&self.tracer, &context);
        let context = Context::new().with_remote_span_context(span.span_context().clone());
        Span { span, context, tracer: self.tracer.clone() }
    }

    /// Sends what is left, in a bounded time.
    pub fn stop(&self) {
        // Nobody is left to tell when the collector is away.
        let _ = self.provider.shutdown_with_timeout(LAST_SPANS);
    }
}

impl Span {
    /// The header by which the next program continues this trace.
    #[must_use]
    pub fn traceparent(&self) -> String {
        parent::write(self.span.span_context())
    }

    /// Adds a text.
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.span.set_attribute(KeyValue::new(name, value.to_owned()));
    }

    /// Adds a count.
    pub fn count(&mut self, name: &'static str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.span.set_attribute(KeyValue::new(name, value));
    }

    /// Says that the request failed.
    pub fn fail(&mut self, why: &str) {
        self.span.set_status(Status::error(why.to_owned()));
    }

    /// Adds a part of it that took from `begin` to `end`.
    pub fn part(&self, name: &'static str, begin: SystemTime, end: SystemTime) {
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Internal);
        let builder = builder.with_start_time(begin);
        builder.start_with_context(&self.tracer, &self.context).end_with_timestamp(end);
    }
}
