//! One streamed chat: printed as it comes, measured, and only good when it is complete.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::daemon::{self, CHECK_INTERVAL, Daemon};
use super::watch::Watch;

/// What is asked, and of whom.
pub(crate) struct Chat {
    pub(crate) url: String,
    pub(crate) model: String,
    pub(crate) prompt: String,
}

/// How fast the answer came, as the client saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// From the request to the first text.
    first_text: Duration,
    /// From the first text to the end.
    rest: Duration,
    /// As `usage` counts them.
    tokens: u64,
}

impl fmt::Display for Timing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ttft = self.first_text.as_secs_f64() * 1e3;
        write!(out, "first text after {ttft:.1} ms (TTFT), {} tokens", self.tokens)?;
        // The first token is the TTFT's; a rate needs a second one.
        if self.tokens > 1 && !self.rest.is_zero() {
            let rate = (self.tokens - 1) as f64 / self.rest.as_secs_f64();
            write!(out, ", {rate:.1} tokens per second after it")?;
        }
        Ok(())
    }
}

enum News {
    Text(String),
    End(Result<Timing>),
}

/// Streams the answer to stdout. Meanwhile the programs are watched and Ctrl-C is heard.
pub(crate) fn stream(chat: Chat, daemons: &mut [&mut Daemon], watch: &Watch) -> Result<Timing> {
    let (sender, news) = sync_channel(64);
    std::thread::Builder::new()
        .name("chat".to_owned())
        .spawn(move || {
            let end = ask(&chat, &sender);
            // Nobody listens any more when the demo was interrupted.
            let _ = sender.send(News::End(end));
        })
        .context("a thread for the chat cannot be started")?;
    show(&news, daemons, watch)
}

fn show(news: &Receiver<News>, daemons: &mut [&mut Daemon], watch: &Watch) -> Result<Timing> {
    let mut out = std::io::stdout().lock();
    loop {
        match news.recv_timeout(CHECK_INTERVAL) {
            Ok(News::Text(text)) => {
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("stdout")?;
            }
            Ok(News::End(end)) => {
                // A dead program explains more than the stream that broke off with it.
                if end.is_err() {
                    daemon::all_alive(daemons)?;
                }
                return end;
            }
            Err(RecvTimeoutError::Timeout) => daemon::all_alive(daemons)?,
            Err(RecvTimeoutError::Disconnected) => bail!("the chat ended without a word"),
        }
        watch.pause(Duration::ZERO)?;
    }
}

fn ask(chat: &Chat, news: &SyncSender<News>) -> Result<Timing> {
    let url = format!("{}/v1/chat/completions", chat.url);
    let body = json!({
        "model": chat.model,
        "messages": [{"role": "user", "content": chat.prompt}],
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let begin = Instant::now();
    let request = ureq::post(&url).config().proxy(None).http_status_as_error(false).build();
    let mut response = request
        .header("content-type", "application/json")
        .send(body.to_string())
        .with_context(|| format!("{url} does not answer"))?;
    if !response.status().is_success() {
        let status = response.status();
        let text = response.body_mut().read_to_string().unwrap_or_default();
        bail!("{url} answered {status}: {}", text.trim());
    }
    let mut answer = Answer::new(begin);
    for line in BufReader::new(response.body_mut().as_reader()).lines() {
        let line = line.context("the stream broke off")?;
        let Some(data) = line.strip_prefix("data:") else { continue };
        let text = answer.take(data.trim(), Instant::now())?;
        if !text.is_empty() {
            let _ = news.send(News::Text(text));
        }
    }
    answer.finish(Instant::now())
}

/// What the stream has said so far.
struct Answer {
    begin: Instant,
    first_text: Option<Instant>,
    finish_reason: Option<String>,
    tokens: Option<u64>,
    done: bool,
}

impl Answer {
    fn new(begin: Instant) -> Self {
        Self { begin, first_text: None, finish_reason: None, tokens: None, done: false }
    }

    /// Takes the data of one event and gives the text in it.
    fn take(&mut self, data: &str, now: Instant) -> Result<String> {
        if data == "[DONE]" {
            self.done = true;
            return Ok(String::new());
        }
        let chunk: Value =
            serde_json::from_str(data).with_context(|| format!("a chunk is no JSON: {data}"))?;
        if let Some(message) = chunk["error"]["message"].as_str() {
            bail!("the stream ended with an error: {message}");
        }
        if let Some(tokens) = chunk["usage"]["completion_tokens"].as_u64() {
            self.tokens = Some(tokens);
        }
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        if !text.is_empty() {
            self.first_text.get_or_insert(now);
        }
        Ok(text.to_owned())
    }

    /// The measure of a complete answer; an incomplete one is an error that says what lacks.
    fn finish(self, now: Instant) -> Result<Timing> {
        let Some(first) = self.first_text else { bail!("the answer holds no text") };
        if self.finish_reason.is_none() {
            bail!("the stream ended without a finish_reason");
        }
        if !self.done {
            bail!("the stream ended without [DONE]");
        }
        let tokens = self.tokens.context("the stream holds no usage, which was asked for")?;
        Ok(Timing { first_text: first - self.begin, rest: now - first, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"choices":[{"delta":{"content":"hi"}}]}"#;
    const FINISH: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const USAGE: &str = r#"{"choices":[],"usage":{"completion_tokens":3}}"#;

    fn answer(events: &[&str]) -> Result<Timing, String> {
        let begin = Instant::now();
        let mut answer = Answer::new(begin);
        for (count, event) in (1..).zip(events) {
            let now = begin + Duration::from_secs(count);
            answer.take(event, now).map_err(|error| error.to_string())?;
        }
        let end = begin + Duration::from_secs(5);
        answer.finish(end).map_err(|error| error.to_string())
    }

    #[test]
    fn a_complete_answer_is_measured_from_its_first_text() {
        let timing = answer(&[TEXT, FINISH, USAGE, "[DONE]"]).expect("complete");
        let line = timing.to_string();
        assert_eq!(
            line,
            "first text after 1000.0 ms (TTFT), 3 tokens, 0.5 tokens per second after it"
        );
    }

    // Requirement 122: a stream without its terminal event is not an answer.
    #[test]
    fn an_incomplete_answer_is_an_error() {
        let lacks = |events: &[&str], what: &str| {
            let error = answer(events).expect_err(what);
            assert!(error.contains(what), "{error}");
        };
        lacks(&[FINISH, USAGE, "[DONE]"], "no text");
        lacks(&[TEXT, USAGE, "[DONE]"], "finish_reason");
        lacks(&[TEXT, FINISH, USAGE], "[DONE]");
        lacks(&[TEXT, FINISH, "[DONE]"], "usage");
        lacks(&[TEXT, r#"{"error":{"message":"the engine ended"}}"#], "the engine ended");
        lacks(&["{"], "no JSON");
    }
}
