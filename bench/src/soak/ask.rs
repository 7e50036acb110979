//! One request of the crowd.

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::client::{Client, chat_url, chunk, limited};
use crate::sse::Lines;

/// How a request ended.
pub(super) enum Answer {
    /// With all of its text.
    Whole(String),
    /// The client went in the middle.
    Left,
}

/// Asks one model of one server.
pub(super) struct Asker {
    pub(super) client: Client,
    url: String,
    model: String,
}

impl Asker {
    pub(super) fn new(url: &str, model: &str) -> Self {
        Self { client: Client::new(), url: chat_url(url), model: model.to_owned() }
    }

    /// The answer, streamed or not; with `leave_after`, a stream is dropped after so many chunks.
    pub(super) async fn ask(
        &self,
        messages: &Value,
        streams: bool,
        leave_after: Option<usize>,
    ) -> Result<Answer> {
        let body = json!({
            "model": self.model, "messages": messages, "stream": streams,
            "max_tokens": 64, "temperature": 0,
        });
        if !streams {
            let answer = self.client.post(&self.url, &body).await?;
            let text = answer["choices"][0]["message"]["content"].as_str();
            return Ok(Answer::Whole(text.context("an answer without text")?.to_owned()));
        }
        let sent = limited(&self.url, self.client.send(&self.url, &body)).await?;
        let mut incoming = sent?.into_body();
        let (mut lines, mut text, mut chunks) = (Lines::default(), String::new(), 0);
        while let Some(frame) = limited(&self.url, incoming.frame()).await? {
            let frame = frame.context("the stream broke off")?;
            for data in lines.take(frame.data_ref().map_or(&[], |data| &data[..]))? {
                if data == "[DONE]" {
                    return Ok(Answer::Whole(text));
                }
                if leave_after == Some(chunks) {
                    return Ok(Answer::Left);
                }
                chunks += 1;
                text.push_str(&content(&data)?);
            }
        }
        bail!("a stream ended without [DONE]")
    }
}

fn content(data: &str) -> Result<String> {
    Ok(chunk(data)?["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned())
}
