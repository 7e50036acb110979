//! `bench turns`: what the second turn of a long conversation costs beside the first.
//!
//! Every conversation is one that nobody has asked before, so its first turn is cold. The second
//! turn appends the answer and a question, as a client does, and should compute only those. Clients
//! that strip the reasoning from what they send back are the second kind that is measured.

mod conversation;

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::client::{Client, Told, chat_url};
use crate::quartiles::Quartiles;
use conversation::Conversation;

/// What `bench turns` can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// A neuron or a cortex, for example http://127.0.0.1:31313.
    #[arg(long)]
    url: String,
    /// The model's id.
    #[arg(long, default_value = "sprout")]
    model: String,
    /// Tokens of the first turn's prompt.
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(100..))]
    tokens: u32,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    answer: u32,
    /// Conversations of each kind.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Exit with status 1 when a second turn has less than this share of its prompt cached.
    #[arg(long, value_name = "SHARE")]
    at_least_cached: Option<f64>,
    /// Exit with status 1 when a second turn's first token takes more than this share of the
    /// first one's, at the median.
    #[arg(long, value_name = "SHARE")]
    at_most_ttft: Option<f64>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// How a client sends an answer back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// As it came; the model does not think.
    Whole,
    /// Without the reasoning that came first.
    Stripped,
}

/// Both turns of one conversation.
#[derive(Clone, Copy, Debug)]
struct Sample {
    cold_ms: f64,
    warm_ms: f64,
    prompt_tokens: u64,
    cached_tokens: u64,
}

/// All conversations of one kind.
#[derive(Debug, Serialize)]
struct Row {
    kind: Kind,
    cold_ttft_ms: Quartiles,
    warm_ttft_ms: Quartiles,
    /// Of the medians.
    ttft_share: f64,
    /// Tokens of the second turn's prompt in the last conversation.
    prompt_tokens: u64,
    /// The smallest share of any conversation.
    cached_share: f64,
}

/// Measures; `false` when a share misses its limit.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let client = Client::new();
    let words = conversation::words_for(&client, &options).await?;
    let mut rows = Vec::new();
    for kind in [Kind::Whole, Kind::Stripped] {
        let mut samples = Vec::new();
        for _ in 0..options.rounds {
            samples.push(one_conversation(&client, &options, kind, words).await?);
        }
        rows.push(row(kind, &samples));
    }
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", json!({"model": options.model, "turns": rows}))?;
    } else {
        writeln!(out, "{}", table(&options, &rows))?;
    }
    Ok(rows.iter().all(|row| {
        options.at_least_cached.is_none_or(|limit| row.cached_share >= limit)
            && options.at_most_ttft.is_none_or(|limit| row.ttft_share <= limit)
    }))
}

async fn one_conversation(
    client: &Client,
    options: &Options,
    kind: Kind,
    words: usize,
) -> Result<Sample> {
    let mut conversation = Conversation::new(words);
    let first = turn(client, options, kind, &conversation).await?;
    if cached_tokens(&first) * 20 > prompt_tokens(&first)? {
        bail!("the first turn was not cold: {} of its tokens were cached", cached_tokens(&first));
    }
    conversation.go_on(&first.content);
    let second = turn(client, options, kind, &conversation).await?;
    Ok(Sample {
        cold_ms: first.first_content.as_secs_f64() * 1e3,
        warm_ms: second.first_content.as_secs_f64() * 1e3,
        prompt_tokens: prompt_tokens(&second)?,
        cached_tokens: cached_tokens(&second),
    })
}

async fn turn(
    client: &Client,
    options: &Options,
    kind: Kind,
    conversation: &Conversation,
) -> Result<Told> {
    let effort = match kind {
        Kind::Whole => "none",
        Kind::Stripped => "low",
    };
    let body = json!({
        "model": options.model,
        "messages": conversation.messages(),
        "max_tokens": options.answer,
        "temperature": 0,
        "ignore_eos": true,
        "reasoning_effort": effort,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    client.told(&chat_url(&options.url), &body).await
}

fn prompt_tokens(told: &Told) -> Result<u64> {
    match told.usage["prompt_tokens"].as_u64() {
        Some(tokens) => Ok(tokens),
        None => bail!("the stream told no usage"),
    }
}

/// Left out when zero.
fn cached_tokens(told: &Told) -> u64 {
    told.usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0)
}

fn row(kind: Kind, samples: &[Sample]) -> Row {
    let of =
        |value: fn(&Sample) -> f64| Quartiles::of(&samples.iter().map(value).collect::<Vec<_>>());
    let (cold, warm) = (of(|sample| sample.cold_ms), of(|sample| sample.warm_ms));
    let shares = samples.iter().map(|s| s.cached_tokens as f64 / s.prompt_tokens.max(1) as f64);
    Row {
        kind,
        cold_ttft_ms: cold,
        warm_ttft_ms: warm,
        ttft_share: warm.median / cold.median,
        prompt_tokens: samples.last().map_or(0, |sample| sample.prompt_tokens),
        cached_share: shares.fold(1.0, f64::min),
    }
}

fn table(options: &Options, rows: &[Row]) -> String {
    let Options { model, rounds, .. } = options;
    let mut lines = vec![
        format!("{model}: the second turn beside the first, {rounds} conversations of each kind"),
        format!(
            "{:10} {:>12} {:>12} {:>8} {:>8} {:>8}",
            "reasoning", "cold ttft ms", "warm ttft ms", "share", "prompt", "cached"
        ),
    ];
    lines.extend(rows.iter().map(|row| {
        let kind = match row.kind {
            Kind::Whole => "none",
            Kind::Stripped => "stripped",
        };
        format!(
            "{kind:10} {:12.1} {:12.1} {:7.1}% {:8} {:7.1}%",
            row.cold_ttft_ms.median,
            row.warm_ttft_ms.median,
            100.0 * row.ttft_share,
            row.prompt_tokens,
            100.0 * row.cached_share,
        )
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_conversation_counts_for_what_was_cached() {
        let sample = |cold_ms, warm_ms, cached_tokens| Sample {
            cold_ms,
            warm_ms,
            prompt_tokens: 1000,
            cached_tokens,
        };
        let row = row(
            Kind::Whole,
            &[sample(100.0, 4.0, 990), sample(300.0, 6.0, 970), sample(200.0, 9.0, 995)],
        );
        assert_eq!((row.cached_share, row.ttft_share), (0.97, 0.03));
        let options = Options {
            url: String::new(),
            model: "m".to_owned(),
            tokens: 4000,
            answer: 16,
            rounds: 3,
            at_least_cached: None,
            at_most_ttft: None,
            json: false,
        };
        let table = table(&options, &[row]);
        assert!(table.contains("200.0          6.0     3.0%     1000    97.0%"), "{table}");
        let told =
            Told { first_content: <_>::default(), content: String::new(), usage: json!(null) };
        assert!(prompt_tokens(&told).is_err());
        assert_eq!(cached_tokens(&told), 0);
    }
}
