//! The story of one inference request, told once at its end: a log line and its metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use traces::Span;
use wire::Dialect;

use crate::app::App;
use crate::auth::Caller;
use crate::ledger::Entry;
use crate::meter::{Meter, Paying, Used};
use crate::metrics::Ended;
use crate::story::{Story, clipped};
use crate::surface::Surface;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The last byte was handed over.
    Complete,
    /// It was answered with an error of ours, with this code.
    Refused(&'static str),
    /// The client left first. A request that is dropped without another end ended so.
    ClientGone,
    /// The upstream's answer ended before its terminal event, or its connection broke.
    UpstreamCut,
    /// The upstream fell silent.
    UpstreamSilent,
    /// This gateway stopped before the answer ended.
    Stopped,
    /// A defect of ours.
    Panicked,
}

impl End {
    pub(crate) fn word(self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::Refused(code) => code,
            End::ClientGone => "client_gone",
            End::UpstreamCut => "upstream_cut",
            End::UpstreamSilent => "upstream_silent",
            End::Stopped => "draining",
            End::Panicked => "internal_error",
        }
    }
}

/// Filled in on the way; written when it is dropped, so that no request goes untold.
pub(crate) struct Record {
    app: Arc<App>,
    surface: &'static Surface,
    started: Instant,
    first_token: Option<Duration>,
    last_token: Option<Duration>,
    /// Told to a collector, where there is one.
    pub span: Option<Span>,
    /// What it may use and did use.
    pub meter: Meter,
    /// `x-request-id`.
    pub id: Arc<str>,
    /// As the client named it; it becomes a label only once a node was found for it.
    pub model: Option<String>,
    /// The node that answers.
    pub node: Option<String>,
    /// 0 before there is an answer.
    pub status: u16,
    /// Bytes of the request's body.
    pub request_bytes: usize,
    /// Bytes of the answer's body.
    pub reply_bytes: u64,
    /// Whether a second replica was asked.
    pub retried: bool,
    /// Whether it waited for its model.
    pub held: bool,
    /// How often its stream changed the node.
    pub moved: u32,
    /// See [`End`].
    pub end: End,
}

impl Record {
    pub(crate) fn begin(
        app: &Arc<App>,
        surface: &'static Surface,
        id: Arc<str>,
        caller: Option<Caller>,
    ) -> Record {
        app.metrics.begin();
        Record {
            app: Arc::clone(app),
            span: None,
            meter: Meter::of(caller),
            surface,
            started: Instant::now(),
            first_token: None,
            last_token: None,
            id,
            model: None,
            node: None,
            status: 0,
            request_bytes: 0,
            reply_bytes: 0,
            retried: false,
            held: false,
            moved: 0,
            end: End::ClientGone,
        }
    }

    /// The dialect in which its client speaks.
    pub(crate) fn dialect(&self) -> Dialect {
        self.surface.dialect
    }

    /// Looks at a piece of a stream.
    pub(crate) fn saw(&mut self, piece: &[u8]) {
        self.reply_bytes += piece.len() as u64;
        let has_words = self.surface.dialect.shows_words(piece);
        if has_words {
            let at = self.started.elapsed();
            self.first_token.get_or_insert(at);
            self.last_token = Some(at);
        }
        self.meter.saw(piece, has_words);
    }

    /// Looks at a piece of a whole body.
    pub(crate) fn saw_body(&mut self, piece: &[u8]) {
        self.reply_bytes += piece.len() as u64;
        self.meter.saw(piece, false);
    }
}

impl Record {
    /// Makes the node's spans a part of this one.
    pub(crate) fn continue_trace(&self, headers: &mut HeaderMap) {
        let Some(span) = &self.span else { return };
        if let Ok(value) = HeaderValue::from_str(&span.traceparent()) {
            headers.insert(traces::HEADER, value);
        }
    }

    fn trace(&mut self, used: &Used) {
        let Some(mut span) = self.span.take() else { return };
        span.text("http.route", self.surface.path);
        span.text("request.id", &self.id);
        span.text("cortex.end", self.end.word());
        span.count("http.response.status_code", self.status.into());
        for (name, value) in [
            ("gen_ai.request.model", self.model.as_deref().map(clipped)),
            ("cortex.node", self.node.as_deref()),
            ("cortex.key", self.meter.key()),
        ] {
            if let Some(value) = value {
                span.text(name, value);
            }
        }
        span.count("gen_ai.usage.input_tokens", used.usage.prompt_tokens.into());
        span.count("gen_ai.usage.output_tokens", used.usage.completion_tokens.into());
        if let Some(first) = self.first_token {
            let ms = u64::try_from(first.as_millis()).unwrap_or(u64::MAX);
            span.count("cortex.first_token_ms", ms);
        }
        if self.end != End::Complete {
            span.fail(self.end.word());
        }
    }

    /// Requirement 114: over the decode window alone.
    fn between(&self, used: &Used) -> Option<Duration> {
        let window = self.last_token?.checked_sub(self.first_token?)?;
        let gaps = used.usage.completion_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(window / gaps)
    }

    fn entry(&self, used: &Used, budget: Option<Paying>, took: Duration) -> Entry {
        Entry {
            id: uuid::Uuid::new_v4().to_string(),
            ended: self.app.door.now(),
            request_id: Arc::clone(&self.id),
            key: self.meter.key().unwrap_or_default().to_owned(),
            model: self.model.as_deref().map(clipped).unwrap_or_default().to_owned(),
            node: self.node.clone().unwrap_or_default(),
            route: self.surface.path,
            status: self.status,
            end: self.end.word(),
            usage: used.usage,
            is_estimate: used.is_estimate,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            budget,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end = End::Panicked;
            self.status = 500;
        }
        let took = self.started.elapsed();
        let (used, paying) = self.meter.settle(self.end == End::Complete);
        self.trace(&used);
        if self.surface.generates() {
            self.app.door.ledger().write(|| self.entry(&used, paying, took));
        }
        let model = self.node.as_ref().and(self.model.as_deref());
        self.app.metrics.end(&Ended {
            route: self.surface.path,
            model,
            key: self.meter.key(),
            status: self.status,
            end: self.end,
            took,
            first_token: self.first_token,
            between: self.between(&used),
            usage: used.usage,
        });
        let story = Story {
            id: Arc::clone(&self.id),
            path: self.surface.path,
            model: self.model.take(),
            node: self.node.take(),
            key: self.meter.key().map(str::to_owned),
            status: self.status,
            end: self.end,
            retried: self.retried,
            held: self.held,
            moved: self.moved,
            request_bytes: self.request_bytes,
            reply_bytes: self.reply_bytes,
            used,
            first_token: self.first_token,
            took,
        };
        story.tell_soon();
    }
}
