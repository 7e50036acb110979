//! How fast an engine computes, without a server around it.
//!
//! Prefill is the time from a prompt's first step to its first token. Decode is the time of steps
//! in which every sequence gets one token. Beside each decode figure stands the memory traffic that
//! it implies: more than the machine can read in that time means that the measurement is wrong.

pub(crate) mod compare;
mod origin;
mod run;
mod stream;
mod table;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use engine::Device;
use serde::{Deserialize, Serialize};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// A GGUF file or a model directory.
    model: PathBuf,
    /// `cpu`, or a card: `cuda` or `cuda:1`.
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: Device,
    /// Threads of the CPU; all cores by default.
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
    /// The commit that was built; that of the checkout around by default.
    #[arg(long)]
    sha: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// All figures of a run.
#[derive(Serialize, Deserialize)]
struct Report {
    model: String,
    architecture: String,
    quant: String,
    /// What it ran on.
    device: String,
    threads: u32,
    weight_bytes: u64,
    command: String,
    /// Of the sources.
    sha: String,
    date: String,
    stream_gb_s: f64,
    prefill: Vec<Prefill>,
    decode: Vec<Decode>,
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
    gb_s: f64,
    /// Of the stream's speed.
    share: f64,
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
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.repeat > 0 && options.tokens > 0, "--repeat and --tokens must be at least 1");
    let threads = match options.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get() as u32,
    };
    let (device, stream) = match options.device {
        Device::Cpu => ("cpu".to_owned(), stream::read_bandwidth(threads as usize)),
        Device::Cuda(ordinal) => {
            let context = kernels::cuda::Context::open(ordinal)?;
            (context.card().name.clone(), context.read_bandwidth()?)
        }
    };
    let report = run::measure(options, device, threads, stream)?;
    table::print(&report, options.json)?;
    for figure in &report.decode {
        ensure!(
            figure.share <= 1.0,
            "depth {}, batch {}: {:.1} GB/s is {:.0} % of what the memory can deliver; \
             the measurement is wrong",
            figure.depth,
            figure.batch,
            figure.gb_s,
            100.0 * figure.share,
        );
    }
    Ok(())
}
