//! `bench score`: a held-out set through the HTTP API, checked answer by answer.

mod check;
mod question;
mod table;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use futures_util::stream::{self, StreamExt};
use serde_json::Value;

use crate::client::{Client, chat_url};
use question::Question;
use table::{Outcome, Score};

/// What `bench score` can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// The server, for example http://127.0.0.1:31313.
    #[arg(long)]
    url: String,
    /// The model's id.
    #[arg(long)]
    model: String,
    /// The held-out set: one JSON object a line.
    #[arg(long, value_name = "JSONL")]
    set: PathBuf,
    /// Questions in flight.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Exit with status 1 below this share of right answers.
    #[arg(long, value_name = "PERCENT")]
    at_least: Option<f64>,
    /// How many wrong answers to show on stderr.
    #[arg(long, default_value_t = 5)]
    wrong: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Asks the whole set; `false` when the share is below what was wanted.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let questions = question::read(&options.set)?;
    let client = Client::new();
    let url = chat_url(&options.url);
    let ask = |question: &Question| {
        let (client, url, body) = (client.clone(), url.clone(), question.body(&options.model));
        async move { client.post(&url, &body).await }
    };
    let answers: Vec<Result<Value>> = stream::iter(questions.iter().map(ask))
        .buffered(options.concurrency.into())
        .collect()
        .await;

    let mut kinds: BTreeMap<&str, Score> = BTreeMap::new();
    let mut shown = 0;
    for (question, answer) in questions.iter().zip(&answers) {
        let outcome = judge(question, answer);
        kinds.entry(&question.kind).or_default().count(&outcome);
        if let (Outcome::Wrong(why) | Outcome::Failed(why), true) =
            (&outcome, shown < options.wrong)
        {
            eprintln!("{} ({}): {why}", question.id, question.kind);
            shown += 1;
        }
    }
    let total = kinds.values().fold(Score::default(), |sum, score| sum.plus(score));
    if let (0, Some(Err(error))) = (total.right, answers.first())
        && total.failed == total.asked
    {
        bail!("no question was answered; the first failure: {error:#}");
    }
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", table::json(&kinds, &total))?;
    } else {
        write!(out, "{}", table::text(&kinds, &total))?;
    }
    Ok(options.at_least.is_none_or(|wanted| total.percent() >= wanted))
}

fn judge(question: &Question, answer: &Result<Value>) -> Outcome {
    match answer {
        Err(error) => Outcome::Failed(format!("{error:#}")),
        Ok(answer) => match check::check(&question.expect, &answer["choices"][0]["message"]) {
            Ok(()) => Outcome::Right,
            Err(why) => Outcome::Wrong(why),
        },
    }
}
