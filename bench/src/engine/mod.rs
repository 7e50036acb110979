//! How fast an engine computes, without a server around it.
//!
//! Prefill is the time from a prompt's first step to its first token. Decode is the time of steps
//! in which every sequence gets one token. Beside each decode figure stands the memory traffic that
//! it implies: more than the machine can read in that time means that the measurement is wrong.

mod run;
mod server;
mod stall;
mod stream;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use stall::Stall;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// A GGUF file or a model directory. With a server it may be left out; then no memory traffic
    /// is implied.
    #[arg(required_unless_present = "against_server")]
    model: Option<PathBuf>,
    /// Measure a server with an OpenAI API instead of an engine of our own.
    #[arg(long, value_name = "URL", requires = "id", conflicts_with_all = ["threads", "stall"])]
    against_server: Option<String>,
    /// The model's id on that server.
    #[arg(long = "model", value_name = "ID", requires = "against_server")]
    id: Option<String>,
    /// Threads; as many as physical cores by default.
    #[arg(long)]
    threads: Option<u32>,
    /// Prompt lengths.
    #[arg(long, value_delimiter = ',', default_values_t = [16, 128, 512, 4096])]
    prefill: Vec<u32>,
    /// Tokens of context in front of the decoded ones.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 4096])]
    depth: Vec<u32>,
    /// Sequences that decode together, at the first depth.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32])]
    batch: Vec<u32>,
    /// Tokens decoded per sequence and measurement.
    #[arg(long, default_value_t = 32)]
    tokens: u32,
    /// Measurements of each figure; the median is reported.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Also a stream's waits while a prompt of this many tokens is computed beside it.
    #[arg(long, value_name = "TOKENS")]
    stall: Option<u32>,
    /// What such a step may take, in milliseconds.
    #[arg(long, default_value_t = 250)]
    stall_ms: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// All figures of a run; those that only the machine or the files tell are missing for a server of
/// which no file was given.
#[derive(Serialize)]
struct Report {
    model: String,
    architecture: Option<String>,
    quant: Option<String>,
    threads: Option<u32>,
    weight_bytes: Option<u64>,
    stream_gb_s: Option<f64>,
    prefill: Vec<Prefill>,
    decode: Vec<Decode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stall: Option<Stall>,
}

/// A prompt's speed.
#[derive(Serialize)]
struct Prefill {
    tokens: u32,
    tok_s: f64,
}

/// A batch's speed.
#[derive(Serialize)]
struct Decode {
    depth: u32,
    batch: u32,
    /// Over all sequences.
    tok_s: f64,
    /// Weights, keys, values and state that the steps read or wrote.
    gb_s: Option<f64>,
    /// Of the stream's speed.
    share: Option<f64>,
}

impl Options {
    /// Depth and batch of each decode figure: all batches at the first depth, then one sequence at
    /// the others.
    fn decodes(&self) -> impl Iterator<Item = (u32, u32)> {
        let first = self.depth.first().copied().unwrap_or(0);
        let batches = self.batch.iter().map(move |batch| (first, *batch));
        batches.chain(self.depth.iter().skip(1).map(|depth| (*depth, 1)))
    }
}

/// Measures and prints. An implied memory speed above the measured one is an error.
pub(crate) async fn run(options: &Options) -> Result<()> {
    ensure!(options.repeat > 0 && options.tokens > 0, "--repeat and --tokens must be at least 1");
    let threads = options.threads.unwrap_or_else(|| engine::cores() as u32);
    let report = if let (Some(url), Some(id)) = (&options.against_server, &options.id) {
        server::measure(options, url, id).await?
    } else {
        let path = options.model.as_deref().context("no model was named")?;
        let stream = stream::read_bandwidth(threads as usize);
        run::measure(options, path, threads, stream)?
    };
    table::print(&report, options.json)?;
    for Decode { depth, batch, gb_s, share, .. } in &report.decode {
        if let (Some(gb_s), Some(share)) = (gb_s, share) {
            ensure!(
                *share <= 1.0,
                "depth {depth}, batch {batch}: {gb_s:.1} GB/s is {:.0} % of what the memory can \
                 deliver; the measurement is wrong",
                100.0 * share,
            );
        }
    }
    Ok(())
}
