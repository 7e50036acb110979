//! The same figures from outside: a server with an OpenAI API. Prompts are token ids, so that their
//! lengths are exact, and no two begin alike, so that no cache helps.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use model::Source;
use serde_json::{Value, json};

use super::run::median;
use super::traffic::Traffic;
use super::{Decode, Options, Prefill, Report, origin, stream};
use crate::client::Client;

/// Ids that every vocabulary has and that mean nothing special.
const IDS: std::ops::Range<u64> = 16..216;

pub(super) async fn measure(options: &Options, base: &str, id: &str) -> Result<Report> {
    let url = format!("{}/v1/completions", base.trim_end_matches('/'));
    let mut server = Server { client: Client::new(), url, id, next: 0 };
    let mut prefill = Vec::new();
    for &tokens in &options.prefill {
        let mut times = Vec::new();
        for _ in 0..options.repeat {
            times.push(server.prefill(tokens).await?);
        }
        prefill.push(Prefill { tokens, tok_s: f64::from(tokens) / median(times) });
    }
    let traffic = match &options.model {
        Some(path) => Some(Traffic::of(&Source::open(path)?)?),
        None => None,
    };
    let cores = engine::cores();
    let stream_gb_s = traffic.as_ref().map(|_| stream::read_bandwidth(cores));
    let mut decode = Vec::new();
    for (depth, batch) in options.decodes() {
        let mut times = Vec::new();
        for _ in 0..options.repeat {
            times.push(server.decode(depth, batch, options.tokens).await?);
        }
        let seconds = median(times) / f64::from(options.tokens);
        let bytes = traffic.as_ref().map(|it| it.bytes(depth + options.tokens / 2, batch));
        let gb_s = bytes.map(|bytes| bytes / seconds / 1e9);
        let share = gb_s.zip(stream_gb_s).map(|(gb_s, stream)| gb_s / stream);
        let tok_s = f64::from(batch) / seconds;
        decode.push(Decode { depth, batch, tok_s, gb_s, share, classes: Vec::new() });
    }
    Ok(Report {
        model: format!("{id} at {base}"),
        architecture: None,
        quant: None,
        device: None,
        threads: None,
        weight_bytes: traffic.map(|it| it.weights),
        command: origin::command(),
        sha: options.sha.clone().unwrap_or_else(origin::sha),
        date: origin::today(),
        stream_gb_s,
        prefill,
        decode,
        stall: None,
    })
}

struct Server<'a> {
    client: Client,
    url: String,
    id: &'a str,
    /// Numbers prompts.
    next: u64,
}

impl Server<'_> {
    fn body(&mut self, prompt: u32, max_tokens: u32) -> Value {
        self.next += 1;
        let width = IDS.end - IDS.start;
        // The number of the prompt in that base, and then what differs from place to place.
        let token = |at: u64| match at {
            0 => self.next % width,
            1 => self.next / width % width,
            _ => (at * 7919 + self.next * 104_729) % width,
        };
        let prompt: Vec<u64> =
            (0..u64::from(prompt.max(1))).map(|at| IDS.start + token(at)).collect();
        json!({
            "model": self.id,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": true,
        })
    }

    /// From the request to its only token.
    async fn prefill(&mut self, tokens: u32) -> Result<Duration> {
        let body = self.body(tokens, 1);
        let began = Instant::now();
        let answer = self.client.post(&self.url, &body).await?;
        let took = began.elapsed();
        let counted = answer["usage"]["prompt_tokens"].as_u64();
        let right = counted == Some(u64::from(tokens));
        ensure!(right, "a prompt of {tokens} tokens was counted as {counted:?}");
        Ok(took)
    }

    /// From the first token of any stream to the last token of all. Streams of a batch begin a
    /// step or two apart, which makes the figure a little too low, never too high.
    async fn decode(&mut self, depth: u32, batch: u32, tokens: u32) -> Result<Duration> {
        let asks: Vec<Value> = (0..batch)
            .map(|_| {
                let mut body = self.body(depth, tokens + 1);
                body["stream"] = true.into();
                body["stream_options"] = json!({"include_usage": true});
                body
            })
            .collect();
        let streams = asks.iter().map(|body| self.stream(body, tokens + 1));
        let streams = try_join_all(streams).await?;
        let began = streams.iter().map(|it| it.0).min().context("no stream")?;
        let ended = streams.iter().map(|it| it.1).max().context("no stream")?;
        Ok(ended - began)
    }

    /// When the first token and the end came.
    async fn stream(&self, body: &Value, tokens: u32) -> Result<(Instant, Instant)> {
        let (mut first, mut last, mut counted) = (None, None, None);
        let each = |data: &str, now: Instant| {
            let chunk: Value = serde_json::from_str(data).context("a chunk is no JSON")?;
            ensure!(chunk.get("error").is_none(), "the stream ended with an error: {chunk}");
            if chunk["choices"].as_array().is_some_and(|choices| !choices.is_empty()) {
                first.get_or_insert(now);
                last = Some(now);
            }
            counted = chunk["usage"]["completion_tokens"].as_u64().or(counted);
            Ok(())
        };
        self.client.stream(&self.url, body, each).await?;
        let right = counted == Some(u64::from(tokens));
        ensure!(right, "{tokens} tokens were asked for and {counted:?} counted");
        first.zip(last).context("a stream without a token")
    }
}
