//! The inference routes: body -> request -> ticket -> answer, told as a stream or as one body.

mod admit;
mod answer;
mod count;
mod embed;
mod marks;
mod prompt;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::ModelStatus;
use dialog::Event;
use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;
use wire::models::Model;
use wire::{Dialect, ErrorBody, EventStream, Projector, Stamp, models as wire_models};

pub(crate) use count::{count_tokens, detokenize, tokenize};
pub(crate) use embed::embed;

use crate::app::App;
use crate::asker::Asker;
use crate::body::{self, BodyError};
use crate::models::served::Served;
use admit::Admitted;
use answer::{Answer, Happening};
use marks::Marks;

/// Silence before the first keep-alive, and between two (requirement 8).
const FIRST_KEEP_ALIVE: Duration = Duration::from_secs(1);
const NEXT_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A request in any of the dialects.
pub(crate) async fn generate(
    dialect: Dialect,
    State(app): State<Arc<App>>,
    asker: Asker,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let arrived = std::time::Instant::now();
    let answered = async {
        let body = read_body(&app, &headers, body).await?;
        let (body, so_far) = marks::split(&headers, body)?;
        let admitted = admit::admit(&app, dialect, &asker, body, arrived, so_far).await?;
        tell(admitted, &asker, marks::are_wanted(&headers)).await
    };
    answered.await.unwrap_or_else(|error| {
        log_refusal(&asker.request_id, &error);
        asker.refuse(&error)
    })
}

async fn read_body(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, ErrorBody> {
    let body = body::read(headers, body, app.body_limit).await;
    body.map_err(|error| refuse_body(error, app.body_limit))
}

/// Streams and whole bodies come out of the same events (requirement 110).
async fn tell(admitted: Admitted, asker: &Asker, is_marked: bool) -> Result<Response, ErrorBody> {
    let Admitted { mut answer, reply, mark, is_resumable, told } = admitted;
    let stamp = Stamp {
        nonce: mark.nonce.clone(),
        request_id: asker.request_id.to_string(),
        model: answer.model().to_owned(),
        created: mark.created,
    };
    let mut collector = match reply.projector(stamp) {
        Projector::Stream(projector) => {
            let keep_alive_at = Instant::now() + FIRST_KEEP_ALIVE;
            let marks = is_marked.then(Marks::default);
            let tells_usage = asker.tells_usage;
            let sse = Sse { answer, projector, keep_alive_at, marks, told, tells_usage };
            let mut response = stream(sse);
            if is_marked {
                let stamp = match is_resumable {
                    true => mark.header(),
                    false => HeaderValue::from_static(""),
                };
                response.headers_mut().insert(marks::STAMP, stamp);
            }
            return Ok(response);
        }
        Projector::Body(collector) => collector,
    };
    while let Some(Happening { choice, events, .. }) = answer.next().await {
        for event in &events {
            collector.choice(choice, event);
        }
    }
    Ok(json(collector.finish()?))
}

struct Sse {
    answer: Answer,
    projector: Box<dyn EventStream>,
    /// When to speak up if nothing else does.
    keep_alive_at: Instant,
    /// Where they are wanted.
    marks: Option<Marks>,
    /// Happenings that the client knows of already: another node told them.
    told: usize,
    /// Whether it tells a gateway what it uses.
    tells_usage: bool,
}

fn stream(sse: Sse) -> Response {
    let frames = futures_util::stream::unfold(sse, |mut sse| async {
        let bytes = next_frames(&mut sse).await?;
        Some((Ok::<_, Infallible>(bytes), sse))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(frames)).into_response()
}

async fn next_frames(sse: &mut Sse) -> Option<Bytes> {
    loop {
        let next = tokio::time::timeout_at(sse.keep_alive_at, sse.answer.next()).await;
        let Ok(next) = next else {
            sse.keep_alive_at = Instant::now() + NEXT_KEEP_ALIVE;
            let word = sse.projector.keep_alive();
            return Some(match &mut sse.marks {
                None => Bytes::from_static(word),
                Some(marks) => marks.mark(word.to_vec()).into(),
            });
        };
        let Happening { choice, events, tokens } = next?;
        let is_milestone = sse.tells_usage && events.iter().any(is_milestone);
        let mut frames = match is_milestone {
            true => wire::usage_comment(&sse.answer.usage()).into_bytes(),
            false => Vec::new(),
        };
        frames.extend(events.iter().flat_map(|event| sse.projector.choice(choice, event)));
        if sse.told > 0 {
            sse.told -= 1;
            continue;
        }
        if let Some(marks) = &mut sse.marks {
            marks.saw(&tokens, &events);
        }
        // Tokens that are held back, as half a character is, leave nothing to say yet.
        if !frames.is_empty() {
            sse.keep_alive_at = Instant::now() + FIRST_KEEP_ALIVE;
            return Some(match &mut sse.marks {
                None => frames.into(),
                Some(marks) => marks.mark(frames).into(),
            });
        }
    }
}

/// At the beginning the prompt's tokens are known, and at the end all of them.
fn is_milestone(event: &Event) -> bool {
    matches!(event, Event::Started { .. } | Event::Finished { .. })
}

/// `GET /v1/models`: what answers, or will again without being asked (requirement 69).
pub(crate) async fn list_models(State(app): State<Arc<App>>, asker: Asker) -> Response {
    let list = app.models.list();
    let models: Vec<Model> = list.iter().filter_map(|served| entry(&app, served)).collect();
    json(match asker.dialect {
        Dialect::Anthropic => wire_models::anthropic_list(&models),
        _ => wire_models::list(&models),
    })
}

/// `GET /v1/models/{id}`
pub(crate) async fn one_model(
    State(app): State<Arc<App>>,
    asker: Asker,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let id = path.map_or_else(|_| "not UTF-8".to_owned(), |Path(id)| id);
    match app.models.get(&id).and_then(|served| entry(&app, &served)) {
        Some(model) if asker.dialect == Dialect::Anthropic => {
            json(wire_models::anthropic_one(&model))
        }
        Some(model) => json(wire_models::one(&model)),
        None => asker.refuse(&ErrorBody::model_not_found(&id)),
    }
}

fn entry(app: &App, served: &Served) -> Option<Model> {
    let view = served.view();
    if matches!(view.status, ModelStatus::Absent | ModelStatus::Failed) {
        return None;
    }
    let context = view.info.as_ref().map(|info| info.context);
    let mut model = Model::new(&served.id, app.started_unix_secs, context);
    model.owned_by = "neuron".to_owned();
    model.loaded = Some(view.status == ModelStatus::Ready);
    model.capabilities = view.assets.as_ref().map_or_else(Vec::new, |a| a.capabilities());
    Some(model)
}

/// `GET /openapi.json`
pub(crate) async fn openapi() -> Response {
    json(wire::openapi::document())
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn refuse_body(error: BodyError, limit: usize) -> ErrorBody {
    match error {
        BodyError::NotJson(kind) => ErrorBody::unsupported_media_type(&kind),
        BodyError::TooLarge => ErrorBody::body_too_large(limit as u64),
        BodyError::TooSlow => {
            let mut body = ErrorBody::invalid_request("the body did not arrive in time");
            (body.status, body.code) = (408, Some("timeout"));
            body
        }
        BodyError::Broken => ErrorBody::invalid_request("the body broke off"),
    }
}

/// A refusal that quotes the caller's values is logged without them.
fn log_refusal(request_id: &str, error: &ErrorBody) {
    let quotes = matches!(error.code, None | Some("invalid_value"));
    let message = if quotes { "" } else { error.message.as_str() };
    let (status, code, param) = (error.status, error.code, error.param.as_deref());
    tracing::info!(request_id, status, code, param, message, "request refused");
}
