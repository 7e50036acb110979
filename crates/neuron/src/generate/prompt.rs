//! Body -> request -> prompt, for everything that starts with a prompt.

use std::sync::Arc;

use bytes::Bytes;
use control::ModelStatus;
use dialog::GenerateRequest;
use engine::EngineInfo;
use text::{Prepared, TextError, TextModel};
use wire::{ErrorBody, WireError};

use crate::app::App;
use crate::models::served::Served;

/// Bodies up to here are worked on where they arrive; a larger one would hold up its neighbours.
pub(super) const LIGHT_BODY_BYTES: usize = 16 << 10;

/// A body that was understood, with the tokens of its prompt.
pub(super) struct Read<R> {
    pub(super) request: GenerateRequest,
    /// What else the body said.
    pub(super) also: R,
    pub(super) served: Arc<Served>,
    pub(super) model: Arc<TextModel>,
    pub(super) info: EngineInfo,
    pub(super) prepared: Prepared,
}

/// Parses a body, finds its model and makes its prompt; `prompt_field` is named in errors.
pub(super) async fn read<R: Send + 'static>(
    app: &App,
    prompt_field: &str,
    body: Bytes,
    parse: impl FnOnce(&[u8]) -> Result<(GenerateRequest, R), WireError> + Send + 'static,
) -> Result<Read<R>, ErrorBody> {
    let heavy = body.len() > LIGHT_BODY_BYTES;
    let parse = move || parse(&body).map_err(|error| ErrorBody::from(&error));
    let (request, also) = off_thread(app, heavy, parse).await??;
    let (served, model, info) = find(app, &request.model)?;
    let text = Arc::clone(&model);
    let prepare = move || {
        let prepared = text.prepare(&request);
        (request, prepared)
    };
    let (request, prepared) = off_thread(app, heavy, prepare).await?;
    let prepared = prepared.map_err(|error| refuse_text(&error, prompt_field))?;
    Ok(Read { request, also, served, model, info, prepared })
}

/// A model that answers now.
pub(super) fn find(
    app: &App,
    id: &str,
) -> Result<(Arc<Served>, Arc<TextModel>, EngineInfo), ErrorBody> {
    let served = app.models.get(id).ok_or_else(|| ErrorBody::model_not_found(id))?;
    let (model, info) = ready(&served)?;
    Ok((served, model, info))
}

/// Runs heavy work on a thread of its own, as many at once as there are cores.
pub(super) async fn off_thread<T: Send + 'static>(
    app: &App,
    heavy: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ErrorBody> {
    if !heavy {
        return Ok(work());
    }
    let failed = || ErrorBody::internal("the server made a mistake; it was logged");
    let permit = Arc::clone(&app.heavy_work).acquire_owned().await.map_err(|_| failed())?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(permit);
        done
    });
    done.await.map_err(|_| failed())
}

pub(super) fn ready(served: &Served) -> Result<(Arc<TextModel>, EngineInfo), ErrorBody> {
    let view = served.view();
    match (&view.assets, &view.info) {
        (Some(assets), Some(info)) if view.status == ModelStatus::Ready => {
            Ok((Arc::clone(&assets.text), info.clone()))
        }
        _ => {
            drop(view);
            Err(unavailable(served))
        }
    }
}

/// Why a model that exists does not answer now, and when to come back.
pub(super) fn unavailable(served: &Served) -> ErrorBody {
    match served.view().status {
        ModelStatus::Absent => ErrorBody::model_not_found(&served.id),
        ModelStatus::Failed => {
            let message = "the model could not be loaded; its operator finds the reason in \
                           GET /models of the node";
            ErrorBody::engine_failed(message, 30)
        }
        ModelStatus::Draining => ErrorBody::draining("the model is being unloaded", 5),
        ModelStatus::Restarting => {
            let message = "the engine died and is being started again, try again soon";
            ErrorBody::engine_failed(message, 2)
        }
        // Ready: it became so between two looks.
        ModelStatus::Downloading | ModelStatus::Loading | ModelStatus::Ready => {
            ErrorBody::loading(&served.id, 2)
        }
    }
}

pub(super) fn refuse_text(error: &TextError, prompt_field: &str) -> ErrorBody {
    let message = error.to_string();
    let about = |param: &str| {
        let mut body = ErrorBody::invalid_request(error.to_string());
        body.param = Some(param.to_owned());
        body
    };
    match error {
        TextError::Refused(_) | TextError::RenderFailed(_) => {
            ErrorBody::template_render_failed(message)
        }
        TextError::PromptTooLong { at_least, limit } => {
            ErrorBody::context_length_exceeded(prompt_field, *limit, *at_least, 0)
        }
        TextError::Format { .. } => about("tools"),
        TextError::ImageInput { path } => about(path),
        TextError::ReservedArgument(_) => about("chat_template_kwargs"),
        TextError::NoTemplate
        | TextError::TooLarge
        | TextError::NoFreeSentinel
        | TextError::NoEmbeddings(_)
        | TextError::UnknownToken { .. }
        | TextError::EmptyPrompt => about(prompt_field),
        TextError::BadTokenizer(_) | TextError::BadTemplate(_) | TextError::BadModelFile { .. } => {
            tracing::error!("a loaded model's text side failed: {message}");
            ErrorBody::internal("the model's tokenizer failed on this prompt")
        }
    }
}
