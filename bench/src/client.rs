//! The HTTP side: one pooled client without Nagle's delay.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::sse::Lines;

/// Silence after which a server counts as gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// Speaks to one or more servers over plain HTTP.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// A streamed chat.
pub(crate) struct Told {
    /// From the request to the first content.
    pub(crate) first_content: Duration,
    /// The answer without its reasoning.
    pub(crate) content: String,
    /// The usage, null when it was not told.
    pub(crate) usage: Value,
}

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { pool: Pool::builder(TokioExecutor::new()).build(connector) }
    }

    /// The JSON answer to a POST; any other status than 2xx is an error with the body's text.
    pub(crate) async fn post(&self, url: &str, body: &Value) -> Result<Value> {
        let whole = async {
            let response = self.send(url, body).await?;
            response.into_body().collect().await.context("the answer broke off")
        };
        let bytes = limited(url, whole).await??.to_bytes();
        serde_json::from_slice(&bytes).with_context(|| format!("{url} answered no JSON"))
    }

    /// The JSON answer to a GET.
    pub(crate) async fn get(&self, url: &str) -> Result<Value> {
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let whole = async {
            let response = self.pool.get(uri).await;
            let response = response.with_context(|| format!("{url} cannot be reached"))?;
            response.into_body().collect().await.context("the answer broke off")
        };
        let bytes = limited(url, whole).await??.to_bytes();
        serde_json::from_slice(&bytes).with_context(|| format!("{url} answered no JSON"))
    }

    /// Streams a chat to its end and gives the time from the request to the first content, be it
    /// reasoning or text (Requirement 114); an incomplete stream is an error.
    pub(crate) async fn first_content(&self, url: &str, body: &Value) -> Result<Duration> {
        Ok(self.told(url, body).await?.first_content)
    }

    /// Streams a chat to its end; an incomplete stream is an error.
    pub(crate) async fn told(&self, url: &str, body: &Value) -> Result<Told> {
        let begin = Instant::now();
        let (mut first, mut content, mut usage) = (None, String::new(), Value::Null);
        let each = |data: &str, now: Instant| {
            let mut chunk = chunk(data)?;
            if first.is_none() && says_something(&chunk) {
                first = Some(now - begin);
            }
            let delta = &chunk["choices"][0]["delta"];
            content.push_str(delta["content"].as_str().unwrap_or_default());
            if chunk["usage"].is_object() {
                usage = chunk["usage"].take();
            }
            Ok(())
        };
        self.stream(url, body, each).await?;
        let first_content = first.with_context(|| format!("{url} streamed no text"))?;
        Ok(Told { first_content, content, usage })
    }

    /// Gives each event's data, with the time it came, to `each`, up to `[DONE]`, which must come.
    pub(crate) async fn stream(
        &self,
        url: &str,
        body: &Value,
        mut each: impl FnMut(&str, Instant) -> Result<()>,
    ) -> Result<()> {
        let mut incoming = limited(url, self.send(url, body)).await??.into_body();
        let mut lines = Lines::default();
        let mut done = false;
        while let Some(frame) = limited(url, incoming.frame()).await? {
            let frame = frame.with_context(|| format!("{url} broke off"))?;
            let now = Instant::now();
            for data in lines.take(frame.data_ref().map_or(&[], |data| &data[..]))? {
                if data == "[DONE]" {
                    done = true;
                } else {
                    each(&data, now)?;
                }
            }
        }
        if !done {
            bail!("{url} ended its stream without [DONE]");
        }
        Ok(())
    }

    /// Sends a POST; any other status than 2xx is an error with the body's text.
    pub(crate) async fn send(&self, url: &str, body: &Value) -> Result<Response<Incoming>> {
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = self.pool.request(request).await;
        let response = response.with_context(|| format!("{url} cannot be reached"))?;
        let status = response.status();
        if !status.is_success() {
            let said = response.into_body().collect().await.map(|b| b.to_bytes());
            let said = said.unwrap_or_default();
            bail!("{url} answered {status}: {}", String::from_utf8_lossy(&said).trim());
        }
        Ok(response)
    }
}

/// Work that has to show a sign of life; a server that shows none is an error.
pub(crate) async fn limited<F: Future>(url: &str, work: F) -> Result<F::Output> {
    let limited = tokio::time::timeout(SILENCE_LIMIT, work).await;
    limited.with_context(|| format!("{url} was silent for {} s", SILENCE_LIMIT.as_secs()))
}

/// An event's JSON; an error event ends the measure.
pub(crate) fn chunk(data: &str) -> Result<Value> {
    let chunk: Value =
        serde_json::from_str(data).with_context(|| format!("a chunk is no JSON: {data}"))?;
    if let Some(error) = chunk.get("error") {
        bail!("the stream ended with an error: {error}");
    }
    Ok(chunk)
}

/// Whether a chunk carries text.
fn says_something(chunk: &Value) -> bool {
    let delta = &chunk["choices"][0]["delta"];
    let text = |field: &str| delta[field].as_str().is_some_and(|text| !text.is_empty());
    text("content") || text("reasoning_content")
}

/// A base URL with the chat route behind it.
pub(crate) fn chat_url(base: &str) -> String {
    format!("{}/v1/chat/completions", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_chunk_is_not_the_first_token() {
        let says = |text| says_something(&chunk(text).expect("a chunk"));
        assert!(!says(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#));
        assert!(says(r#"{"choices":[{"delta":{"content":"a"}}]}"#));
        assert!(says(r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#));
        assert!(!says(r#"{"choices":[],"usage":{}}"#));
        assert!(chunk(r#"{"error":{"message":"gone"}}"#).is_err());
    }
}
