//! Routes that turn words into tokens or back, and generate nothing.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use text::{TextError, TextModel};
use wire::{ErrorBody, anthropic, tokenize};

use super::{json, prompt, read_body};
use crate::app::App;
use crate::asker::Asker;

/// `POST /v1/messages/count_tokens`
pub(crate) async fn count_tokens(
    State(app): State<Arc<App>>,
    asker: Asker,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let counted = async {
        let body = read_body(&app, &headers, body).await?;
        let parse = |body: &[u8]| Ok((anthropic::parse_count(body)?, ()));
        let read = prompt::read(&app, "messages", body, parse).await?;
        let count = u32::try_from(read.prepared.tokens.len()).unwrap_or(u32::MAX);
        Ok(anthropic::token_count(count))
    };
    answer(&asker, counted.await)
}

/// `POST /tokenize`
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    asker: Asker,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let tokenized = async {
        let body = read_body(&app, &headers, body).await?;
        let parse = |body: &[u8]| {
            let asked = tokenize::parse_tokenize(body)?;
            Ok((asked.request, asked.pieces))
        };
        let read = prompt::read(&app, "prompt", body, parse).await?;
        let tokens = &read.prepared.tokens;
        let text = |token: &u32| {
            String::from_utf8_lossy(read.model.tokenizer.token_bytes(*token)).into_owned()
        };
        let pieces: Option<Vec<String>> = read.also.then(|| tokens.iter().map(text).collect());
        Ok(tokenize::tokens_body(tokens, Some(read.info.context), pieces.as_deref()))
    };
    answer(&asker, tokenized.await)
}

/// `POST /detokenize`
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    asker: Asker,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let told = async {
        let body = read_body(&app, &headers, body).await?;
        let asked = tokenize::parse_detokenize(&body).map_err(|error| ErrorBody::from(&error))?;
        let (_, model, _) = prompt::find(&app, &asked.model)?;
        let text = words(&model, &asked.tokens);
        let text = text.map_err(|error| prompt::refuse_text(&error, "tokens"))?;
        Ok(tokenize::text_body(&text))
    };
    answer(&asker, told.await)
}

/// The text of tokens, specials included; bytes that make no character become U+FFFD.
fn words(model: &TextModel, tokens: &[u32]) -> Result<String, TextError> {
    let vocab_size = model.tokenizer.vocab_size();
    if let Some(&token) = tokens.iter().find(|token| **token >= vocab_size) {
        return Err(TextError::UnknownToken { token, vocab_size });
    }
    let bytes: Vec<u8> =
        tokens.iter().flat_map(|token| model.tokenizer.token_bytes(*token)).copied().collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn answer(asker: &Asker, result: Result<Vec<u8>, ErrorBody>) -> Response {
    match result {
        Ok(body) => json(body),
        Err(error) => asker.refuse(&error),
    }
}
