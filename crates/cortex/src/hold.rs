//! A stream whose model is on its way: keep-alives that tell how far it is, then the answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use control::{ModelStatus, Progress};
use fleet::Stage;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, Sleep, sleep};
use wire::{ErrorBody, Retry};

use crate::app::App;
use crate::generate::{Answered, Asked, relayed, stream_of};
use crate::pursue::pursue;
use crate::record::{End, Record};
use crate::relay::Relay;
use crate::reply::BodyError;

/// Silence before the first keep-alive, and between two (requirement 8).
pub(crate) const FIRST_WORD: Duration = Duration::from_secs(1);
const NEXT_WORD: Duration = Duration::from_secs(5);
/// The largest refusal of a node that is read.
const REFUSAL_LIMIT_BYTES: usize = 1 << 20;

/// A request that waits, with its story.
pub(crate) type Job = Pin<Box<dyn Future<Output = (Result<Answered, ErrorBody>, Record)> + Send>>;

/// Begins to wait; `said` is what a node answered that lacks the model.
pub(crate) fn begin(
    app: &Arc<App>,
    asked: &Arc<Asked>,
    said: Option<Box<Answered>>,
    mut record: Record,
) -> Job {
    let (app, asked) = (Arc::clone(app), Arc::clone(asked));
    Box::pin(async move {
        let answered = pursue(&app, &asked, said, &mut record).await;
        (answered, record)
    })
}

/// The body of an answer that has begun before there was one.
pub(crate) struct Held {
    app: Arc<App>,
    asked: Arc<Asked>,
    state: State,
    next_word: Pin<Box<Sleep>>,
}

enum State {
    Waiting(Job),
    /// A node has refused, and the rest of its words are on their way.
    Refused(Pin<Box<dyn Future<Output = (Bytes, Record)> + Send>>),
    Relaying(Box<Relay>),
    Done,
}

impl Held {
    pub(crate) fn new(app: Arc<App>, asked: Arc<Asked>, job: Job) -> Held {
        // The first word goes out at once: the silence before it is over.
        let next_word = Box::pin(sleep(Duration::ZERO));
        Held { app, asked, state: State::Waiting(job), next_word }
    }

    /// What to send after a silence: how far the model is, as a comment.
    fn word(&self) -> Bytes {
        let told = tell(&self.app, &self.asked);
        let mut word = format!(": {told}\n\n").into_bytes();
        // A dialect whose clients wait for events gets one.
        let event = self.asked.surface.dialect.keep_alive();
        if !event.starts_with(b":") {
            word.extend_from_slice(event);
        }
        Bytes::from(word)
    }

    /// The waiting has an end.
    fn arrived(&mut self, answered: Result<Answered, ErrorBody>, record: Record) -> Option<Bytes> {
        match answered {
            Ok(answered) if stream_of(&self.asked, &answered.upstream).is_some() => {
                let (relay, _) = relayed(&self.app, &self.asked, answered, record);
                self.state = State::Relaying(Box::new(relay));
                None
            }
            Ok(answered) => {
                self.state = State::Refused(Box::pin(refused(answered, record)));
                None
            }
            Err(error) => {
                self.state = State::Done;
                Some(refuse(&error, record))
            }
        }
    }
}

/// A refusal after the head has gone out is an event of the stream (requirement 122).
fn refuse(error: &ErrorBody, mut record: Record) -> Bytes {
    record.status = 200;
    record.end = End::Refused(error.code.unwrap_or("invalid_request"));
    let event = record.dialect().error_event(error, &record.id, b"");
    record.reply_bytes += event.len() as u64;
    Bytes::from(event)
}

/// A node's refusal, read to its end and told as an event.
async fn refused(answered: Answered, record: Record) -> (Bytes, Record) {
    let (head, body) = answered.upstream.into_parts();
    let body = Limited::new(body, REFUSAL_LIMIT_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let error = error_of(head.status.as_u16(), &body);
    let event = record.dialect().error_event(&error, &record.id, b"");
    (Bytes::from(event), record)
}

/// The envelope of either family of dialects.
fn error_of(status: u16, body: &[u8]) -> ErrorBody {
    #[derive(serde::Deserialize)]
    struct Envelope {
        error: Inner,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        message: String,
        param: Option<String>,
    }
    let read = serde_json::from_slice::<Envelope>(body);
    let (message, param) = match read {
        Ok(Envelope { error: Inner { message, param } }) => (message, param),
        Err(_) => (format!("the model's node refused the request with status {status}"), None),
    };
    let (kind, code) = match status {
        400..=499 => ("invalid_request_error", "invalid_request"),
        _ => ("server_error", "upstream_refused"),
    };
    ErrorBody { status, message, kind, param, code: Some(code), retry: Retry::Never }
}

impl Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Done => return Poll::Ready(None),
                State::Relaying(relay) => return Pin::new(&mut **relay).poll_frame(cx),
                State::Refused(words) => {
                    let (event, mut record) = std::task::ready!(words.as_mut().poll(cx));
                    record.status = 200;
                    record.end = End::Refused("upstream_refused");
                    this.state = State::Done;
                    return Poll::Ready(Some(Ok(Frame::data(event))));
                }
                State::Waiting(job) => {
                    if let Poll::Ready((answered, record)) = job.as_mut().poll(cx) {
                        match this.arrived(answered, record) {
                            Some(last) => return Poll::Ready(Some(Ok(Frame::data(last)))),
                            None => continue,
                        }
                    }
                    std::task::ready!(this.next_word.as_mut().poll(cx));
                    this.next_word.as_mut().reset(Instant::now() + NEXT_WORD);
                    // Registers the timer again before the word goes out.
                    let _ = this.next_word.as_mut().poll(cx);
                    let word = this.word();
                    return Poll::Ready(Some(Ok(Frame::data(word))));
                }
            }
        }
    }
}

/// How far a model is, and until when the request waits for it.
fn tell(app: &App, asked: &Asked) -> String {
    let now = app.now();
    let left_secs = asked.deadline.since_ms(now).div_ceil(1000);
    let said = match (near(app, &asked.model), eta_secs(app, &asked.model)) {
        (Some(Near::Loading(Some(progress))), eta_secs) => {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let (done, total) = (mib(progress.done_bytes), mib(progress.total_bytes));
            let eta = eta_secs.map_or_else(String::new, |secs| format!(", about {secs} s left"));
            format!("is loading: {done:.1} of {total:.1} MiB{eta}")
        }
        (Some(Near::Loading(None)), _) => "is loading".to_owned(),
        (Some(Near::MakingRoom), _) => "waits for another model to make room".to_owned(),
        (None, _) => "waits for a place".to_owned(),
    };
    format!("{} {said}; this request waits {left_secs} s at most", asked.model)
}

enum Near {
    MakingRoom,
    Loading(Option<Progress>),
}

fn near(app: &App, model: &str) -> Option<Near> {
    let fleet = app.fleet.load();
    let progress = |place: usize| fleet.nodes.get(place)?.model(model)?.progress;
    let front = app.front();
    let arrival = front.desk.arrivals().iter().find(|it| it.model == model && it.is_hopeful());
    if let Some(arrival) = arrival {
        return Some(match arrival.stage {
            Stage::Loading | Stage::Loaded { .. } => Near::Loading(progress(arrival.place)),
            _ => Near::MakingRoom,
        });
    }
    drop(front);
    let is_coming = |status| matches!(status, ModelStatus::Loading | ModelStatus::Downloading);
    let elsewhere = fleet.nodes.iter().filter_map(|node| node.model(model));
    let mut elsewhere = elsewhere.filter(|report| is_coming(report.status));
    elsewhere.next().map(|report| Near::Loading(report.progress))
}

/// Seconds until the model is ready, if it goes on at the pace that it has had so far.
pub(crate) fn eta_secs(app: &App, model: &str) -> Option<u64> {
    let (fleet, now) = (app.fleet.load(), app.now());
    let front = app.front();
    let ((place, _), since) = front.loading.iter().find(|((_, id), _)| id == model)?;
    let progress = fleet.nodes.get(*place)?.model(model)?.progress?;
    let elapsed_ms = now.since_ms(*since);
    let left = progress.total_bytes.saturating_sub(progress.done_bytes);
    let done = progress.done_bytes.max(1);
    (progress.done_bytes > 0).then(|| {
        let left_ms = u128::from(elapsed_ms) * u128::from(left) / u128::from(done);
        u64::try_from(left_ms.div_ceil(1000)).unwrap_or(u64::MAX)
    })
}
