//! How fast an engine computes, without a server around it.
//!
//! Prefill is the time from a prompt's first step to its first token. Decode is the time of steps
//! in which every sequence gets one token. Beside each decode figure stands the memory traffic that
//! it implies: more than the machine can read in that time means that the measurement is wrong.

mod classes;
pub(crate) mod compare;
mod origin;
mod run;
mod server;
mod stall;
mod stream;
mod table;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use engine::Device;
use serde::{Deserialize, Serialize};

use classes::ClassTime;
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
    /// `cpu`, or a card: `cuda` or `cuda:1`.
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: Device,
    /// Threads of the CPU; as many as physical cores by default.
    #[arg(long)]
    threads: Option<u32>,
    /// Tokens of a step: prompts are computed in chunks of at most this. 512 on the CPU, 4096 on a
    /// card.
    #[arg(long)]
    token_budget: Option<u32>,
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
    /// Also a stream's waits while a prompt of this many tokens is computed beside it, and those of
    /// a short prompt that comes behind that one.
    #[arg(long, value_name = "TOKENS")]
    stall: Option<u32>,
    /// What such a step may take, in milliseconds.
    #[arg(long, default_value_t = 250)]
    stall_ms: u32,
    /// Also where the time of a decode step goes, by class of kernels: what each launch takes
    /// alone, without what overlaps. Only for a card.
    #[arg(long, conflicts_with = "against_server")]
    classes: bool,
    /// The commit that was built; that of the checkout around by default.
    #[arg(long)]
    sha: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// All figures of a run; those that only the machine or the files tell are missing for a server of
/// which no file was given.
#[derive(Serialize, Deserialize)]
struct Report {
    model: String,
    architecture: Option<String>,
    quant: Option<String>,
    /// What it ran on.
    device: Option<String>,
    threads: Option<u32>,
    weight_bytes: Option<u64>,
    command: String,
    /// Of the sources.
    sha: String,
    date: String,
    stream_gb_s: Option<f64>,
    prefill: Vec<Prefill>,
    decode: Vec<Decode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stall: Option<Stall>,
}

/// A prompt's speed.
#[derive(Serialize, Deserialize)]
struct Prefill {
    tokens: u32,
    tok_s: f64,
}

/// A batch's speed.
#[derive(Serialize, Deserialize)]
struct Decode {
    depth: u32,
    batch: u32,
    /// Over all sequences.
    tok_s: f64,
    /// Weights, keys, values and state that the steps read or wrote.
    gb_s: Option<f64>,
    /// Of the stream's speed.
    share: Option<f64>,
    /// Where a step's time goes, if that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    classes: Vec<ClassTime>,
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

/// `cpu`, `cuda` or `cuda:1`.
fn device(text: &str) -> Result<Device, String> {
    match text.split_once(':') {
        None if text == "cpu" => Ok(Device::Cpu),
        None if text == "cuda" => Ok(Device::Cuda(0)),
        Some(("cuda", ordinal)) => {
            let number = ordinal.parse();
            number.map(Device::Cuda).map_err(|_| format!("`{ordinal}` is no number of a card"))
        }
        _ => Err("a device is `cpu`, `cuda` or `cuda:NUMBER`".to_owned()),
    }
}

/// Measures and prints. An implied memory speed above the measured one is an error.
pub(crate) async fn run(options: &Options) -> Result<()> {
    ensure!(options.repeat > 0 && options.tokens > 0, "--repeat and --tokens must be at least 1");
    let takes_times = matches!(options.device, Device::Cuda(_));
    ensure!(takes_times || !options.classes, "--classes needs a card: --device cuda");
    let threads = options.threads.unwrap_or_else(|| engine::cores() as u32);
    let report = if let (Some(url), Some(id)) = (&options.against_server, &options.id) {
        server::measure(options, url, id).await?
    } else {
        let path = options.model.as_deref().context("no model was named")?;
        let (device, stream) = match options.device {
            Device::Cpu => ("cpu".to_owned(), stream::read_bandwidth(threads as usize)),
            Device::Cuda(ordinal) => {
                let context = kernels::cuda::Context::open(ordinal)?;
                (context.card().name.clone(), context.read_bandwidth()?)
            }
        };
        run::measure(options, path, device, threads, stream)?
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
