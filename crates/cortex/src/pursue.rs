//! Pursues a request until a node has begun to answer it, or nobody can.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::{Outcome, Refusal, Tick};
use http::{HeaderMap, HeaderValue, Response};
use tokio::time::timeout;
use wire::ErrorBody;

use crate::app::App;
use crate::forward::{Fault, chained};
use crate::front::{Claim, To};
use crate::generate::{Answered, Asked};
use crate::record::Record;
use crate::refusal::{self, NO_OTHER, refused};
use crate::resume::MARKS;
use crate::upstream::Answer;

/// How long a node that said that it has no such model has to say so in a report.
const REFRESH: Duration = Duration::from_millis(1500);

/// How far a request got at once.
pub(crate) enum Pursued {
    Answered(Answered),
    Refused(ErrorBody),
    /// Its model has to be brought first. With what the node said that lacks it, if one was asked:
    /// where the model cannot be brought, those are the better words.
    Cold(Option<Box<Answered>>),
}

/// Asks a replica, and once more another one when nothing of an answer has come (requirement 123).
pub(crate) async fn first_try(app: &Arc<App>, asked: &Arc<Asked>, record: &mut Record) -> Pursued {
    let mut tried = None;
    // A node that answers "not now" is worth a second opinion, and its words are worth keeping.
    let mut busy: Option<Answered> = None;
    loop {
        let to = match app.claim(asked, tried) {
            Claim::Forward(to) => to,
            Claim::Cold if tried.is_none() => return Pursued::Cold(None),
            Claim::Cold => return no_other(app, asked, tried, busy, NO_OTHER).await,
            Claim::Refuse(refusal) => return no_other(app, asked, tried, busy, refusal).await,
        };
        record.retried = tried.is_some();
        record.node = Some(to.name.clone());
        let place = to.place;
        match ask(app, asked, to, HeaderMap::new(), None).await {
            Ok(answered) => match answered.upstream.status().as_u16() {
                503 if asked.keep.is_some() && tried.is_none() => busy = Some(answered),
                404 | 503 if asked.keep.is_some() && is_gone(app, place, &asked.model).await => {
                    return Pursued::Cold(Some(Box::new(answered)));
                }
                _ => return Pursued::Answered(answered),
            },
            Err(Fault::Stopped) => {
                let error = ErrorBody::draining("the gateway stops; ask again", 2);
                return Pursued::Refused(error);
            }
            Err(_) if asked.keep.is_none() || asked.has_broken() > 1 => {
                return no_other(app, asked, None, busy, NO_OTHER).await;
            }
            Err(_) => {}
        }
        tried = Some(place);
    }
}

/// Nobody is left to ask. Where the one that was asked only lacks the model, that can be brought.
async fn no_other(
    app: &Arc<App>,
    asked: &Asked,
    tried: Option<usize>,
    busy: Option<Answered>,
    refusal: Refusal,
) -> Pursued {
    match (tried, busy) {
        (Some(place), Some(busy)) if is_gone(app, place, &asked.model).await => {
            Pursued::Cold(Some(Box::new(busy)))
        }
        (_, Some(busy)) => Pursued::Answered(busy),
        (_, None) => Pursued::Refused(refused(refusal, &asked.model)),
    }
}

/// Waits for a cold model until it is there, and asks for it then. `said` is what a node answered
/// that lacks it.
pub(crate) async fn pursue(
    app: &Arc<App>,
    asked: &Arc<Asked>,
    mut said: Option<Box<Answered>>,
    record: &mut Record,
) -> Result<Answered, ErrorBody> {
    if asked.keep.is_none() {
        return Err(refusal::crowded());
    }
    let begun = app.now();
    loop {
        let mut cut = app.cut.subscribe();
        let outcome = tokio::select! {
            outcome = app.wait_for(&asked.model, None, asked.deadline) => outcome,
            _ = cut.wait_for(|is_cut| *is_cut) => {
                return Err(ErrorBody::draining("the gateway stops; ask again", 2));
            }
        };
        record.held = true;
        match outcome.ok_or_else(refusal::crowded)? {
            Outcome::Ready => {}
            Outcome::TimedOut => {
                let waited_secs = app.now().since_ms(begun) / 1000;
                let eta_secs = crate::hold::eta_secs(app, &asked.model).unwrap_or(10);
                return Err(refusal::late(&asked.model, waited_secs, eta_secs.clamp(1, 60) as u32));
            }
            Outcome::Nowhere(verdicts) => {
                if let Some(said) = said {
                    return Ok(*said);
                }
                tracing::warn!(id = &*record.id, model = &*asked.model, ?verdicts, "nowhere");
                return Err(refusal::nowhere(&asked.model, &verdicts));
            }
        }
        match first_try(app, asked, record).await {
            Pursued::Answered(answered) => return Ok(answered),
            Pursued::Refused(error) => return Err(error),
            Pursued::Cold(words) => said = words.or(said),
        }
    }
}

/// Sends a request where it was claimed to go. `suffix` follows the body.
pub(crate) async fn ask(
    app: &Arc<App>,
    asked: &Asked,
    to: To,
    more: HeaderMap,
    suffix: Option<&[u8]>,
) -> Result<Answered, Fault> {
    let begun = app.now();
    let sent = send(app, asked, &to, more, suffix).await;
    note(app, asked, &to, begun, &sent);
    sent.map(|upstream| Answered { upstream, node: to.name, ticket: to.ticket })
}

/// What routing learns from it.
fn note(app: &App, asked: &Asked, to: &To, begun: Tick, sent: &Result<Response<Answer>, Fault>) {
    let now = app.now();
    let mut front = app.front();
    match sent {
        Ok(upstream) => {
            front.outliers.answered(to.place);
            if asked.is_stream && upstream.status() == 200 {
                let after_ms = u32::try_from(now.since_ms(begun)).unwrap_or(u32::MAX);
                front.desk.answered(to.place, &asked.model, after_ms);
            }
        }
        Err(Fault::Stopped | Fault::Url(_)) => {}
        Err(fault) => {
            drop(front);
            app.doubt(to.place);
            tracing::warn!(node = to.name, error = chained(fault), "a node did not answer");
        }
    }
}

/// Waits for the head of the answer. There is no time-out on a whole answer, which may take long;
/// the wait ends when the node itself is lost, or when a stream stays silent (requirement 70).
async fn send(
    app: &Arc<App>,
    asked: &Asked,
    to: &To,
    more: HeaderMap,
    suffix: Option<&[u8]>,
) -> Result<Response<Answer>, Fault> {
    let path = asked.surface.path;
    let url = match &asked.query {
        Some(query) => format!("{}{path}?{query}", to.url),
        None => format!("{}{path}", to.url),
    };
    let mut headers = asked.headers.clone();
    if asked.is_stream && asked.keep.is_some() {
        headers.insert(MARKS, HeaderValue::from_static("1"));
    }
    headers.extend(more);
    let body = match suffix {
        None => asked.body.clone(),
        Some(suffix) => Bytes::from([&asked.body[..], suffix].concat()),
    };
    let mut sent = pin!(app.client.post(&url, headers, body));
    let (idle, silence) = {
        let settings = app.settings.load();
        let gateway = &settings.config.gateway;
        (gateway.idle_timeout(), Duration::from_millis(gateway.silence_ms))
    };
    let begun = app.now();
    loop {
        if let Ok(answer) = timeout(silence, &mut sent).await {
            return answer;
        }
        if *app.cut.borrow() {
            return Err(Fault::Stopped);
        }
        // The answer may come while the node is looked at.
        tokio::select! {
            answer = &mut sent => return answer,
            is_alive = app.is_alive(to.place) => if !is_alive {
                return Err(Fault::Lost);
            }
        }
        if asked.is_stream && u128::from(app.now().since_ms(begun)) >= idle.as_millis() {
            return Err(Fault::Silent);
        }
    }
}

/// Whether a node does not have a model that it was asked for: it was unloaded there by others, or
/// the node was started anew. The node's next report tells.
pub(crate) async fn is_gone(app: &Arc<App>, place: usize, model: &str) -> bool {
    let asked = app.now();
    app.poll_soon(place);
    let news = async {
        loop {
            let fleet = app.fleet.load_full();
            match fleet.nodes.get(place) {
                Some(node) if node.seen.is_some_and(|seen| seen >= asked) => {
                    return !node.serves(model);
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                None => return true,
            }
        }
    };
    timeout(REFRESH, news).await.unwrap_or(false)
}
