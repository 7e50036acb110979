//! `bench soak`: many clients for a long time, some of whom leave in the middle.
//!
//! Every prompt holds a nonce of its own and is answered alone first. In the crowd each answer must
//! be the same text again, so one token that belongs to somebody else, or is missing, is seen. At
//! the end the engine must hold nothing, and the server's memory must not have grown.

mod ask;
mod prompt;
mod watch;

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::json;

use crate::client::Client;
use ask::{Answer, Asker};
use prompt::{Draws, Prompt};
use watch::{Idle, Memory};

/// Between two readings of the server's memory.
const READING: Duration = Duration::from_secs(5);
/// How long a server may take to give back what a client that left had held.
const SETTLING: Duration = Duration::from_secs(2);

/// What `bench soak` can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// The server, for example http://127.0.0.1:31313.
    #[arg(long)]
    url: String,
    /// The neuron whose blocks and slots are looked at, for example http://127.0.0.1:13131.
    #[arg(long)]
    neuron: String,
    /// Its process: its memory and its children's are read.
    #[arg(long)]
    pid: u32,
    /// The model's id.
    #[arg(long, default_value = "sprout")]
    model: String,
    /// Seconds that clients keep asking.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Clients at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Of a hundred requests, how many are left in the middle.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100))]
    leave: u64,
    /// Different prompts.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    prompts: u64,
    /// Growth of the memory, last minute over second, that still counts as none.
    #[arg(long, default_value_t = 2.0, value_name = "PERCENT")]
    growth: f64,
    /// Keys the prompts and who leaves when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Default)]
struct Counts {
    right: AtomicU64,
    left: AtomicU64,
    wrong: AtomicU64,
}

/// Soaks; `false` when anything was wrong.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let asker = Asker::new(&options.url, &options.model);
    let prompts = answered_alone(&asker, &options).await?;
    let idle = watch::idle(&asker.client, &options.neuron, &options.model).await?;
    let (counts, end) = (Counts::default(), Instant::now() + Duration::from_secs(options.seconds));
    let crowd = (0..options.clients).map(|client| {
        let draws = Draws::new(options.seed ^ (u64::from(client) + 1) << 32);
        keep_asking(&asker, &prompts, draws, options.leave, end, &counts)
    });
    let mut memory = Memory::default();
    let crowd = async { try_join_all(crowd).await.map(|_| ()) };
    tokio::select! {
        done = crowd => done?,
        failed = memory.read_every(READING, options.pid) => failed?,
    }
    let settled = settled(&asker.client, &options, &idle).await?;
    report(&options, prompts.len(), &counts, &memory, &idle, &settled)
}

/// Every prompt with what it is answered when nobody else asks.
async fn answered_alone(asker: &Asker, options: &Options) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    let mut draws = Draws::new(options.seed);
    // A model this small misreads some nonces; only what it repeats alone is a question here.
    for number in 0..4 * options.prompts {
        if prompts.len() as u64 == options.prompts {
            return Ok(prompts);
        }
        let mut prompt = Prompt::draw(&mut draws, number);
        let Answer::Whole(text) = asker.ask(&prompt.messages, false, None).await? else {
            bail!("an answer that nobody left was not whole");
        };
        if text.contains(&prompt.nonce) {
            prompt.answer = text;
            prompts.push(prompt);
        }
    }
    let (found, asked) = (prompts.len(), 4 * options.prompts);
    ensure!(found as u64 == options.prompts, "{found} of {asked} nonces came back, asked alone");
    Ok(prompts)
}

async fn keep_asking(
    asker: &Asker,
    prompts: &[Prompt],
    mut draws: Draws,
    leave: u64,
    end: Instant,
    counts: &Counts,
) -> Result<()> {
    while Instant::now() < end {
        let prompt = &prompts[draws.below(prompts.len() as u64) as usize];
        let leave_after = (draws.below(100) < leave).then(|| draws.below(6) as usize);
        let streams = leave_after.is_some() || draws.below(2) == 0;
        let count = match asker.ask(&prompt.messages, streams, leave_after).await? {
            Answer::Left => &counts.left,
            Answer::Whole(text) if text == prompt.answer => &counts.right,
            Answer::Whole(text) => {
                eprintln!("asked for {}, got {text:?}, not {:?}", prompt.nonce, prompt.answer);
                &counts.wrong
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// What the engine holds once it has had time to hear of the last client that left.
async fn settled(client: &Client, options: &Options, idle: &Idle) -> Result<Idle> {
    let end = Instant::now() + SETTLING;
    loop {
        let now = watch::idle(client, &options.neuron, &options.model).await?;
        if now == *idle || Instant::now() > end {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn report(
    options: &Options,
    prompts: usize,
    counts: &Counts,
    memory: &Memory,
    idle: &Idle,
    settled: &Idle,
) -> Result<bool> {
    let [right, left, wrong] =
        [&counts.right, &counts.left, &counts.wrong].map(|count| count.load(Ordering::Relaxed));
    let growth = memory.growth_percent();
    let story = json!({
        "seconds": options.seconds, "clients": options.clients, "prompts": prompts,
        "right": right, "left": left, "wrong": wrong,
        "idle_before": idle, "idle_after": settled,
        "rss_mb_by_minute": memory.by_minute(), "rss_growth_percent": growth,
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(&story)?).context("nobody reads stdout")?;
    // A run of less than three minutes has no second minute to compare with.
    let flat = growth.is_none_or(|growth| growth <= options.growth);
    Ok(wrong == 0 && right > 0 && settled == idle && flat)
}
