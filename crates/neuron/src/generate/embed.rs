//! `POST /v1/embeddings`: prompts in, hidden states out.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use dialog::{FinishReason, Prompt, Usage};
use engine::{EngineInfo, Pooling, TokenRequest};
use futures_util::StreamExt;
use futures_util::stream;
use http::HeaderMap;
use text::{EmbeddingForm, EmbeddingPooling, TextError, TextModel};
use wire::ErrorBody;
use wire::embeddings::{self, EmbeddingRequest};

use super::admit::{refuse_ending, refuse_not_taken};
use super::prompt::{LIGHT_BODY_BYTES, find, off_thread, refuse_text};
use super::{json, log_refusal, read_body};
use crate::app::App;
use crate::asker::Asker;
use crate::models::live::{Ending, Times};
use crate::models::served::Served;
use crate::story::{Outcome, Story};

/// Inputs of one request that are in the engine's line at once: a long list must not fill it.
const AT_ONCE: usize = 32;

/// `POST /v1/embeddings`
pub(crate) async fn embed(
    State(app): State<Arc<App>>,
    asker: Asker,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let arrived = Instant::now();
    let embedded = async {
        let body = read_body(&app, &headers, body).await?;
        let heavy = body.len() > LIGHT_BODY_BYTES;
        let parse = move || embeddings::parse(&body).map_err(|error| ErrorBody::from(&error));
        let asked = off_thread(&app, heavy, parse).await??;
        let (served, model, info) = find(&app, &asked.model)?;
        let text = Arc::clone(&model);
        let tokenise = move || {
            let prompts: Result<Vec<_>, _> =
                asked.inputs.iter().map(|input| tokens(&text, &info, input)).collect();
            (asked, prompts)
        };
        let (asked, prompts) = off_thread(&app, heavy, tokenise).await?;
        let form = model.embedding_form().map_err(|error| refuse_model(&error))?;
        let isolation = app.isolation.key(asker.identity.as_ref(), &asked.sharing);
        let prompts = prompts?.into_iter().map(|prompt| request(prompt, form, isolation));
        tell(served, &asker, form, &asked, prompts.collect(), arrived).await
    };
    match embedded.await {
        Ok(body) => json(body),
        Err(error) => {
            log_refusal(&asker.request_id, &error);
            asker.refuse(&error)
        }
    }
}

/// The prompt of one input; the engine makes one token behind it, which nobody sees.
fn tokens(model: &TextModel, info: &EngineInfo, input: &Prompt) -> Result<Vec<u32>, ErrorBody> {
    let tokens = match input {
        Prompt::Text(text) => model.embedding_tokens(text),
        Prompt::Tokens(tokens) => {
            let vocab_size = info.vocab_size.min(model.tokenizer.vocab_size());
            match tokens.iter().find(|token| **token >= vocab_size) {
                Some(&token) => Err(TextError::UnknownToken { token, vocab_size }),
                None => model.embedding_form().map(|_| tokens.clone()),
            }
        }
        Prompt::Chat(_) => Err(TextError::NoEmbeddings("of conversations".to_owned())),
    };
    let tokens = tokens.map_err(|error| match error {
        TextError::NoEmbeddings(_) => refuse_model(&error),
        error => refuse_text(&error, "input"),
    })?;
    let length = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    if length == 0 {
        return Err(refuse_text(&TextError::EmptyPrompt, "input"));
    }
    if length >= info.context {
        return Err(ErrorBody::context_length_exceeded("input", info.context, length, 0));
    }
    Ok(tokens)
}

fn refuse_model(error: &TextError) -> ErrorBody {
    let mut body = ErrorBody::invalid_request(format!("{error}; ask a model that does"));
    (body.param, body.code) = (Some("model".to_owned()), Some("no_embeddings"));
    body
}

fn request(prompt: Vec<u32>, form: &EmbeddingForm, isolation: u64) -> TokenRequest {
    let pooling = match form.pooling {
        EmbeddingPooling::Last => Pooling::Last,
        EmbeddingPooling::Mean => Pooling::Mean,
    };
    TokenRequest { pooling: Some(pooling), isolation, ..TokenRequest::new(0, prompt, 1) }
}

/// Runs all prompts and makes the body of their embeddings.
async fn tell(
    served: Arc<Served>,
    asker: &Asker,
    form: &EmbeddingForm,
    asked: &EmbeddingRequest,
    prompts: Vec<TokenRequest>,
    arrived: Instant,
) -> Result<Vec<u8>, ErrorBody> {
    let prompt_tokens: u64 = prompts.iter().map(|request| request.prompt.len() as u64).sum();
    let mut story = Story {
        request_id: Arc::clone(&asker.request_id),
        served: Arc::clone(&served),
        dialect: "embeddings",
        stream: false,
        arrived,
        usage: Usage {
            prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX),
            ..Usage::default()
        },
        times: Times::default(),
        turns: Vec::new(),
        outcome: None,
        // It has no parts: the gateway's span says all that there is.
        span: None,
    };
    let one = |request: TokenRequest| {
        let ticket = served.live.submit(request).map_err(|why| refuse_not_taken(&served, why));
        async move {
            let ticket = ticket?;
            let values = ticket.embedding().await.map_err(refuse)?;
            Ok::<_, ErrorBody>((values, ticket.times()))
        }
    };
    let mut done = stream::iter(prompts).map(one).buffered(AT_ONCE);
    let mut vectors = Vec::new();
    while let Some(result) = done.next().await {
        let (values, times) = result.inspect_err(|_| story.outcome = Some(Outcome::Refused))?;
        let values = shape(values, form, asked.dimensions);
        vectors.push(values.inspect_err(|_| story.outcome = Some(Outcome::Refused))?);
        story.usage.cached_tokens += times.cached_tokens;
        story.times.started = story.times.started.or(times.started);
        story.times.first_token = times.first_token;
    }
    story.outcome = Some(Outcome::Finished(FinishReason::Stop));
    Ok(embeddings::body(&asked.model, &vectors, asked.encoding, prompt_tokens))
}

fn refuse(ending: Ending) -> ErrorBody {
    refuse_ending("input", None, ending)
}

/// Cuts an embedding and brings it to length 1, as far as that is wanted.
fn shape(
    mut values: Vec<f32>,
    form: &EmbeddingForm,
    dimensions: Option<u32>,
) -> Result<Vec<f32>, ErrorBody> {
    if values.iter().any(|value| !value.is_finite()) {
        return Err(ErrorBody::internal("the model's numbers broke on this input"));
    }
    if let Some(dimensions) = dimensions {
        check_dimensions(dimensions, values.len(), form)?;
        values.truncate(dimensions as usize);
    }
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if form.is_normalised && length > 0.0 {
        values.iter_mut().for_each(|value| *value /= length);
    }
    Ok(values)
}

fn check_dimensions(wanted: u32, have: usize, form: &EmbeddingForm) -> Result<(), ErrorBody> {
    let is_one_of = form.dimensions.is_empty() || form.dimensions.contains(&wanted);
    if is_one_of && wanted as usize <= have {
        return Ok(());
    }
    let allowed = match &form.dimensions[..] {
        [] => format!("from 1 to {have}"),
        some => format!("one of {some:?}"),
    };
    let message = format!("dimensions must be {allowed} for this model, got {wanted}");
    let mut body = ErrorBody::invalid_request(message);
    (body.param, body.code) = (Some("dimensions".to_owned()), Some("invalid_value"));
    Err(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(is_normalised: bool, dimensions: Vec<u32>) -> EmbeddingForm {
        let (before, after) = (Vec::new(), Vec::new());
        let pooling = EmbeddingPooling::Last;
        EmbeddingForm { pooling, is_normalised, before, after, dimensions }
    }

    #[test]
    fn what_is_left_of_an_embedding_has_length_1_again() {
        let values = vec![3.0, 4.0, 12.0];
        let whole = shape(values.clone(), &form(true, vec![]), None).unwrap();
        assert_eq!(whole, [3.0 / 13.0, 4.0 / 13.0, 12.0 / 13.0]);
        let cut = shape(values.clone(), &form(true, vec![]), Some(2)).unwrap();
        assert_eq!(cut, [0.6, 0.8]);
        let bare = shape(values.clone(), &form(false, vec![2]), Some(2)).unwrap();
        assert_eq!(bare, [3.0, 4.0]);
        for (form, wanted) in [(form(true, vec![]), 4), (form(true, vec![2]), 1)] {
            let error = shape(values.clone(), &form, Some(wanted)).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some("dimensions")));
        }
        let broken = shape(vec![f32::NAN], &form(true, vec![]), None).unwrap_err();
        assert_eq!(broken.status, 500);
    }
}
