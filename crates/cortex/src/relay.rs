//! The body of a forwarded answer: every frame as it came, and a proper end whatever happens.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Sleep;
use wire::{Dialect, ErrorBody, Retry};

use crate::app::Ticket;
use crate::record::{End, Record};
use crate::reply::BodyError;
use crate::tail::{Ending, Tail};

/// Polled by the client's connection, so it goes no faster than the client reads. Dropping it drops
/// the upstream's connection, which is how a client that leaves stops the work upstream.
pub(crate) struct Relay {
    /// None once the last frame was handed over.
    upstream: Option<Incoming>,
    /// Kept for an SSE stream only.
    stream: Option<Stream>,
    silence: Silence,
    /// Ends when the gateway gives up open requests.
    cut: Cut,
    record: Record,
    /// Counts the request on its node for as long as this lives.
    _ticket: Ticket,
}

type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn until_cut(mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|is_cut| *is_cut).await.is_err() {
        // The gateway itself is gone, and with it the task that polls this.
        std::future::pending::<()>().await;
    }
}

struct Stream {
    dialect: Dialect,
    tail: Tail,
}

impl Relay {
    pub(crate) fn new(
        upstream: Incoming,
        stream_of: Option<Dialect>,
        idle_timeout: Duration,
        cut: watch::Receiver<bool>,
        record: Record,
        ticket: Ticket,
    ) -> Relay {
        let stream = stream_of.map(|dialect| Stream { dialect, tail: Tail::default() });
        let silence = Silence { limit: idle_timeout, heard: Instant::now(), sleep: None };
        let cut = Box::pin(until_cut(cut));
        Relay { upstream: Some(upstream), stream, silence, cut, record, _ticket: ticket }
    }

    /// The upstream's bytes ended, on their own or by a fault.
    fn finish(&mut self, end: End) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upstream = None;
        self.record.end = end;
        let Some(stream) = &self.stream else {
            return match end {
                End::Complete => Poll::Ready(None),
                _ => Poll::Ready(Some(Err("the upstream's answer was cut short".into()))),
            };
        };
        let (dialect, tail) = (stream.dialect, &stream.tail);
        let event = || dialect.error_event(&lost(end), &self.record.id, tail.seen());
        let last = match tail.ending(dialect) {
            Ending::Whole => {
                self.record.end = End::Complete;
                return Poll::Ready(None);
            }
            Ending::Unclosed => {
                self.record.end = End::Complete;
                Bytes::from_static(b"\n\n")
            }
            Ending::BetweenFrames => Bytes::from(event()),
            Ending::InFrame => Bytes::from([b"\n\n", &event()[..]].concat()),
        };
        if self.record.end == End::Complete && last.len() > 2 {
            self.record.end = End::UpstreamCut;
        }
        self.record.reply_bytes += last.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(last))))
    }
}

/// The error that takes the place of a missing terminal event (requirement 122).
fn lost(end: End) -> ErrorBody {
    let (code, message) = match end {
        End::UpstreamSilent => ("upstream_timeout", "the model's node fell silent"),
        End::Stopped => ("draining", "the gateway stopped before the answer was complete"),
        _ => ("upstream_disconnected", "the model's node ended the answer before it was complete"),
    };
    let (message, code, retry) = (message.to_owned(), Some(code), Retry::Never);
    ErrorBody { status: 502, message, kind: "server_error", param: None, code, retry }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(upstream) = &mut this.upstream else { return Poll::Ready(None) };
        match Pin::new(upstream).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.silence.broken();
                if let Some(data) = frame.data_ref() {
                    match &mut this.stream {
                        Some(stream) => {
                            stream.tail.push(data);
                            this.record.saw(data);
                        }
                        None => this.record.saw_body(data),
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => this.finish(End::Complete),
            Poll::Ready(Some(Err(error))) => {
                tracing::warn!(id = &*this.record.id, %error, "an upstream's answer broke off");
                this.finish(End::UpstreamCut)
            }
            Poll::Pending if this.silence.poll(cx).is_ready() => this.finish(End::UpstreamSilent),
            Poll::Pending if this.cut.as_mut().poll(cx).is_ready() => this.finish(End::Stopped),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match (&self.upstream, &self.stream) {
            (None, _) => true,
            (Some(upstream), None) => upstream.is_end_stream(),
            (Some(_), Some(_)) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.upstream, &self.stream) {
            (Some(upstream), None) => upstream.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A body of known length is not polled past its last byte.
        let is_done = self.upstream.as_ref().is_some_and(Body::is_end_stream);
        if is_done && self.stream.is_none() {
            self.record.end = End::Complete;
        }
    }
}

/// The time since the upstream was last heard. The timer is moved only when it fires, so a frame
/// costs one reading of the clock.
struct Silence {
    limit: Duration,
    heard: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    fn broken(&mut self) {
        self.heard = Instant::now();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.heard + self.limit;
            let sleep = match &mut self.sleep {
                Some(sleep) => sleep,
                none => none.insert(Box::pin(tokio::time::sleep_until(deadline.into()))),
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
    }
}
