//! The body of a forwarded answer: every frame as it came, and a proper end whatever happens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use wire::{Dialect, ErrorBody, Retry};

use crate::app::App;
use crate::front::Ticket;
use crate::generate::{Answered, Asked};
use crate::record::{End, Record};
use crate::reply::BodyError;
use crate::resume::{Heard, Marked, stamp, take_over};
use crate::silence::{Quiet, Silence};
use crate::tail::{Ending, Tail};
use crate::upstream::Answer;

/// How often a stream may change its node.
const MOVES: u32 = 3;

/// Polled by the client's connection, so it goes no faster than the client reads. Dropping it drops
/// the upstream's connection, which is how a client that leaves stops the work upstream.
pub(crate) struct Relay {
    source: Source,
    /// Kept for an SSE stream only.
    stream: Option<Stream>,
    silence: Silence,
    /// Ends when the gateway gives up open requests.
    cut: Cut,
    record: Record,
    app: Arc<App>,
    asked: Arc<Asked>,
}

/// Where bytes come from.
enum Source {
    /// A node; the ticket counts the request there.
    Node(Answer, Ticket),
    /// Another node is asked to go on; if it does not, the stream ends so.
    Moving { taken: Taken, end: End, last_words: Bytes },
    /// Nothing comes any more.
    Over,
}

type Taken = Pin<Box<dyn Future<Output = Option<Answered>> + Send>>;
type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;
type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// What a relay was made for.
pub(crate) struct Origin {
    pub app: Arc<App>,
    pub asked: Arc<Asked>,
    pub ticket: Ticket,
}

async fn until_cut(mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|is_cut| *is_cut).await.is_err() {
        // The gateway itself is gone, and with it the task that polls this.
        std::future::pending::<()>().await;
    }
}

struct Stream {
    dialect: Dialect,
    tail: Tail,
    marked: Option<Marked>,
    /// Whether the client has something of the answer.
    has_begun: bool,
    moves: u32,
}

impl Relay {
    pub(crate) fn new(
        upstream: Answer,
        stream_of: Option<Dialect>,
        stamp: Option<String>,
        origin: Origin,
        record: Record,
    ) -> Relay {
        let Origin { app, asked, ticket } = origin;
        let stream = stream_of.map(|dialect| Stream {
            dialect,
            tail: Tail::of(dialect),
            marked: stamp.map(Marked::new),
            has_begun: false,
            moves: 0,
        });
        let (idle, quiet) = {
            let settings = app.settings.load();
            let gateway = &settings.config.gateway;
            (gateway.idle_timeout(), Duration::from_millis(gateway.silence_ms))
        };
        let silence = Silence::new(idle, quiet);
        let cut = Box::pin(until_cut(app.cut.subscribe()));
        Relay { source: Source::Node(upstream, ticket), stream, silence, cut, record, app, asked }
    }

    /// Bytes of a node; none when there is nothing to hand over yet.
    fn heard(&mut self, frame: Frame<Bytes>) -> Option<Polled> {
        self.silence.broken();
        let Some(stream) = &mut self.stream else {
            if let Some(data) = frame.data_ref() {
                self.record.saw_body(data);
            }
            return Some(Poll::Ready(Some(Ok(frame))));
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return Some(Poll::Ready(Some(Ok(other)))),
        };
        let data = match &mut stream.marked {
            None => data,
            Some(marked) => match marked.push(data) {
                Heard::Said(data) => data,
                Heard::Nothing => return None,
                Heard::Lost(last_words) => return self.broke(End::UpstreamCut, last_words),
            },
        };
        Some(self.said(data))
    }

    fn said(&mut self, data: Bytes) -> Polled {
        if let Some(stream) = &mut self.stream {
            stream.tail.push(&data);
            stream.has_begun = true;
        }
        self.record.saw(&data);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// The node's bytes ended, on their own or by a fault. Another node goes on if it can; none
    /// means that it has been asked.
    fn broke(&mut self, end: End, last_words: Bytes) -> Option<Polled> {
        if !self.may_move(end) {
            return Some(self.finish(end, last_words));
        }
        let Source::Node(_, ticket) = std::mem::replace(&mut self.source, Source::Over) else {
            return Some(self.finish(end, last_words));
        };
        let Some(stream) = &mut self.stream else { return Some(self.finish(end, last_words)) };
        stream.moves += 1;
        let marked = stream.marked.take().filter(|_| stream.has_begun);
        let (app, asked) = (Arc::clone(&self.app), Arc::clone(&self.asked));
        let again = marked.as_ref().map(Marked::copy);
        let origin = Origin { app, asked, ticket };
        stream.marked = again;
        let taken = Box::pin(take_over(origin, marked));
        self.source = Source::Moving { taken, end, last_words };
        None
    }

    /// Whether the rest of the stream can come from elsewhere: it has no end yet, its body was
    /// kept, and either nothing of it has gone out or it is known how far it was.
    fn may_move(&self, end: End) -> bool {
        let Some(stream) = &self.stream else { return false };
        let has_ended = matches!(stream.tail.ending(), Ending::Whole | Ending::Unclosed);
        let is_known = stream.marked.as_ref().is_some_and(Marked::is_resumable);
        end != End::Stopped
            && !(has_ended && stream.has_begun)
            && stream.moves < MOVES
            && self.asked.keep.is_some()
            && (is_known || !stream.has_begun)
    }

    /// Another node has answered, or nobody.
    fn moved(&mut self, answered: Option<Answered>, end: End, last_words: Bytes) -> Option<Polled> {
        let (Some(answered), Some(stream)) = (answered, &mut self.stream) else {
            return Some(self.finish(end, last_words));
        };
        let stamp = stamp(&answered.upstream);
        stream.marked = match (stream.marked.take(), stamp) {
            (Some(marked), Some(_)) => Some(marked),
            (_, stamp) => stamp.map(Marked::new),
        };
        tracing::info!(id = &*self.record.id, node = answered.node, "a stream goes on elsewhere");
        self.record.node = Some(answered.node);
        self.record.moved += 1;
        self.silence.broken();
        self.source = Source::Node(answered.upstream.into_body(), answered.ticket);
        None
    }

    /// Nothing comes any more: the stream gets the end that it lacks.
    fn finish(&mut self, end: End, last_words: Bytes) -> Polled {
        self.source = Source::Over;
        self.record.end = end;
        let Some(stream) = &mut self.stream else {
            return match end {
                End::Complete => Poll::Ready(None),
                _ => Poll::Ready(Some(Err("the upstream's answer was cut short".into()))),
            };
        };
        let rest = match (&mut stream.marked, last_words.is_empty()) {
            (Some(marked), true) => marked.rest(),
            _ => last_words,
        };
        stream.tail.push(&rest);
        let (dialect, tail) = (stream.dialect, &stream.tail);
        let event = || dialect.error_event(&lost(end), &self.record.id, tail.seen());
        let (more, is_cut) = match tail.ending() {
            Ending::Whole => (Vec::new(), false),
            Ending::Unclosed => (b"\n\n".to_vec(), false),
            Ending::BetweenFrames => (event(), true),
            Ending::InFrame => ([b"\n\n", &event()[..]].concat(), true),
        };
        self.record.end = match (end, is_cut) {
            (End::Complete, true) => End::UpstreamCut,
            (_, false) if rest.is_empty() => End::Complete,
            (end, _) => end,
        };
        let last = Bytes::from([&rest[..], &more].concat());
        self.record.reply_bytes += last.len() as u64;
        match last.is_empty() {
            true => Poll::Ready(None),
            false => Poll::Ready(Some(Ok(Frame::data(last)))),
        }
    }

    /// The node says nothing.
    fn quiet(&mut self, cx: &mut Context<'_>, place: usize) -> Option<Polled> {
        match self.silence.poll(cx, || {
            let app = Arc::clone(&self.app);
            Box::pin(async move { app.is_alive(place).await })
        }) {
            Poll::Ready(Quiet::TooLong) => self.broke(End::UpstreamSilent, Bytes::new()),
            Poll::Ready(Quiet::Dead) => {
                self.app.doubt(place);
                let (id, node) = (&*self.record.id, &self.record.node);
                tracing::warn!(id, node, "a node fell silent");
                self.broke(End::UpstreamCut, Bytes::new())
            }
            Poll::Pending => Some(Poll::Pending),
        }
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

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        loop {
            let done = match &mut this.source {
                Source::Over => return Poll::Ready(None),
                Source::Node(upstream, ticket) => {
                    let place = ticket.place;
                    match Pin::new(upstream).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => this.heard(frame),
                        Poll::Ready(None) => this.broke(End::Complete, Bytes::new()),
                        Poll::Ready(Some(Err(error))) => {
                            this.app.doubt(place);
                            let id = &*this.record.id;
                            tracing::warn!(id, %error, "an upstream's answer broke off");
                            this.broke(End::UpstreamCut, Bytes::new())
                        }
                        Poll::Pending if this.cut.as_mut().poll(cx).is_ready() => {
                            Some(this.finish(End::Stopped, Bytes::new()))
                        }
                        Poll::Pending => this.quiet(cx, place),
                    }
                }
                Source::Moving { taken, end, last_words } => {
                    let (end, words) = (*end, last_words.clone());
                    match taken.as_mut().poll(cx) {
                        Poll::Ready(answered) => this.moved(answered, end, words),
                        Poll::Pending if this.cut.as_mut().poll(cx).is_ready() => {
                            Some(this.finish(End::Stopped, Bytes::new()))
                        }
                        Poll::Pending => Some(Poll::Pending),
                    }
                }
            };
            if let Some(done) = done {
                return done;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match (&self.source, &self.stream) {
            (Source::Over, _) => true,
            (Source::Node(upstream, _), None) => upstream.is_end_stream(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, &self.stream) {
            (Source::Node(upstream, _), None) => upstream.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A body of known length is not polled past its last byte.
        let is_done = matches!(&self.source, Source::Node(upstream, _) if upstream.is_end_stream());
        if is_done && self.stream.is_none() {
            self.record.end = End::Complete;
        }
    }
}
