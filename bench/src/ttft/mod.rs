//! `bench ttft`: what the gateway adds to the time to first token.
//!
//! Both ways are measured in turns within one run, so that whatever else the machine does falls on
//! both, and the spread is printed beside the medians, so that nobody believes a difference that is
//! smaller than the noise.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::client::{Client, chat_url};
use crate::quartiles::Quartiles;

/// What `bench ttft` can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// A neuron, for example http://127.0.0.1:13131.
    #[arg(long)]
    direct: String,
    /// A cortex in front of it, for example http://127.0.0.1:31313.
    #[arg(long)]
    through: String,
    /// The model's id.
    #[arg(long, default_value = "sprout")]
    model: String,
    /// Streams at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    streams: u16,
    /// Rounds that count; one more warms up.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 16)]
    max_tokens: u32,
    /// Exit with status 1 when the gateway adds more than this at the median.
    #[arg(long, value_name = "MS")]
    at_most: Option<f64>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Samples {
    direct: Vec<f64>,
    through: Vec<f64>,
    /// Of each round: the median through the gateway minus the median without it.
    added: Vec<f64>,
}

/// Measures; `false` when the gateway adds more than it may.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let client = Client::new();
    let urls = [chat_url(&options.direct), chat_url(&options.through)];
    let mut samples = Samples::default();
    for round in 0..=options.rounds {
        let mut times = [Vec::new(), Vec::new()];
        // Who goes first changes, so that neither is always the one with warm caches.
        let first = usize::from(round % 2);
        for side in [first, 1 - first] {
            times[side] = one_round(&client, &urls[side], &options, round).await?;
        }
        if round == 0 {
            continue;
        }
        let [direct, through] = times;
        samples.added.push(Quartiles::of(&through).median - Quartiles::of(&direct).median);
        samples.direct.extend(direct);
        samples.through.extend(through);
    }
    let [direct, through, added] =
        [&samples.direct, &samples.through, &samples.added].map(|all| Quartiles::of(all));
    let difference = through.median - direct.median;
    let mut out = std::io::stdout().lock();
    if options.json {
        let rows = json!({"direct": direct, "through": through, "added_by_round": added});
        writeln!(out, "{}", json!({"ttft_ms": rows, "difference_of_medians_ms": difference}))?;
    } else {
        writeln!(out, "{}", table(&options, direct, through, added))?;
    }
    Ok(options.at_most.is_none_or(|limit| difference <= limit))
}

/// All streams of one side at once: the milliseconds until each one's first token.
async fn one_round(client: &Client, url: &str, options: &Options, round: u16) -> Result<Vec<f64>> {
    let asks = (0..options.streams).map(|stream| {
        let body = body(options, round, stream);
        async move { client.first_content(url, &body).await }
    });
    let times = try_join_all(asks).await?;
    Ok(times.iter().map(|time| time.as_secs_f64() * 1e3).collect())
}

fn body(options: &Options, round: u16, stream: u16) -> Value {
    // Every stream asks something of its own, and both sides ask the same.
    let prompt = format!("What is {} + {}?", round % 100, stream % 100);
    json!({
        "model": options.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": options.max_tokens,
        "temperature": 0,
        "stream": true,
    })
}

fn table(options: &Options, direct: Quartiles, through: Quartiles, added: Quartiles) -> String {
    let row = |name: &str, q: Quartiles| {
        format!("{name:16} {:8.2} {:8.2} {:8.2}", q.lower, q.median, q.upper)
    };
    let Options { streams, rounds, .. } = options;
    [
        format!("time to first token, {streams} streams at once, {rounds} rounds in turns"),
        format!("{:16} {:>8} {:>8} {:>8}", "ms", "25 %", "median", "75 %"),
        row("direct", direct),
        row("through", through),
        row("added by round", added),
        format!("difference of the medians: {:.2} ms", through.median - direct.median),
    ]
    .join("\n")
}
