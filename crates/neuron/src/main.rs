//! The `neuron` program.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use control::{LoadPlan, LoadRequest, RankPlan};
use model::Recipe;
use neuron::child;
use neuron::child::process::EngineProgram;
use neuron::config::Config;
use neuron::host::{cards, discover};
use neuron::hub::Pull;
use neuron::logging;
use neuron::models::lifecycle::RestartPolicy;
use neuron::serve::Daemon;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Finds the hardware of this host, runs models on it and answers for them over HTTP.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon.
    Serve {
        /// The configuration file; /etc/neuron/neuron.toml by default, if it is there.
        #[arg(long, short)]
        config: Option<PathBuf>,
    },
    /// Run one model for a daemon at the other end of standard input.
    #[command(hide = true)]
    Engine,
    /// Read the configuration and say what is wrong with it.
    CheckConfig {
        /// The configuration file; /etc/neuron/neuron.toml by default, if it is there.
        #[arg(long, short)]
        config: Option<PathBuf>,
        /// Write out every setting as it is in force.
        #[arg(long)]
        print_config: bool,
    },
    /// Write a safetensors model as a GGUF file.
    Convert {
        /// A directory with `config.json` and safetensors files.
        source: PathBuf,
        /// The file to write.
        out: PathBuf,
        /// The weights' format, for example `Q4_K_M`, `Q6_K`, `Q8_0` or `BF16`.
        #[arg(long, default_value = "Q8_0")]
        quant: String,
    },
    Pull(Pull),
    /// Say what a model would take of this host, without loading it.
    Plan(Plan),
    /// Say what was found on this host and what models would run on.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Plan {
    /// A directory with safetensors or GGUF files, or a GGUF file.
    source: PathBuf,
    /// The weights' format, for example `Q4_K_M`; what the source holds by default.
    #[arg(long)]
    quant: Option<String>,
    /// Tokens of prompt and answer together; the model's own by default.
    #[arg(long)]
    context: Option<u32>,
    /// Requests that run together.
    #[arg(long)]
    max_running: Option<u32>,
    /// The card to run on; by default the one with most free memory, or the CPU.
    #[arg(long)]
    card: Option<u32>,
    /// The configuration file; /etc/neuron/neuron.toml by default, if it is there.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve { config } => serve(config.as_deref()),
        Command::Engine => {
            start_log();
            return child::run(child::native::load);
        }
        Command::CheckConfig { config, print_config } => {
            check_config(config.as_deref(), print_config)
        }
        Command::Convert { source, out, quant } => convert(&source, &out, &quant),
        Command::Pull(arguments) => arguments.run(),
        Command::Plan(arguments) => plan(arguments),
        Command::Doctor { json } => doctor(json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "neuron: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log() {
    logging::start(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")));
}

fn serve(path: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    start_log();
    let program = own_engine(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let daemon = Daemon::bind(&config, program, RestartPolicy::default()).await?;
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(stop_on_signal(stop)?);
        daemon.run(stopped).await;
        anyhow::Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// This program, as the engine child of its own daemon.
fn own_engine(config: &Config) -> anyhow::Result<EngineProgram> {
    Ok(EngineProgram {
        path: std::env::current_exe().context("the path of this program")?,
        args: vec![OsString::from("engine")],
        step_timeout: Duration::from_secs(config.harness.native.step_timeout_secs),
    })
}

/// The first signal ends the daemon in order, the second one at once.
fn stop_on_signal(stop: watch::Sender<bool>) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if *stop.borrow() {
                std::process::exit(130);
            }
            stop.send_replace(true);
        }
    })
}

fn check_config(path: Option<&Path>, print_config: bool) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    neuron::serve::check(&config)?;
    let mut out = io::stdout();
    if print_config {
        write!(out, "{}", toml::to_string_pretty(&config)?)?;
    } else {
        writeln!(out, "the configuration is fine")?;
    }
    Ok(())
}

fn convert(source: &Path, out: &Path, quant: &str) -> anyhow::Result<()> {
    let recipe = Recipe::from_name(quant).with_context(|| {
        let known: Vec<_> = Recipe::all().map(Recipe::name).collect();
        format!("unknown format {quant}; known: {}", known.join(", "))
    })?;
    model::convert(source, out, recipe)?;
    let size = std::fs::metadata(out)?.len();
    writeln!(io::stdout(), "wrote {}, {size} bytes", out.display())?;
    Ok(())
}

/// Fails when the model does not fit, so that a script can ask.
fn plan(arguments: Plan) -> anyhow::Result<()> {
    let Plan { source, quant, context, max_running, card, config, json } = arguments;
    let config = Config::load(config.as_deref())?;
    let source = source.to_str().context("the source is not UTF-8, which a load must be")?;
    let request = LoadRequest {
        model_id: "model".to_owned(),
        source: Some(source.to_owned()),
        quant,
        context,
        max_running,
        devices: card.map(|card| vec![card]),
        ..LoadRequest::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let planned = neuron::serve::plan(&config, own_engine(&config)?, request);
    let plan = runtime.block_on(planned).with_context(|| source.to_owned())?;
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
    } else {
        write!(out, "{}", plan_in_words(&plan))?;
    }
    anyhow::ensure!(plan.fits, "it does not fit: ask for less, or for a smaller --quant");
    Ok(())
}

fn plan_in_words(plan: &LoadPlan) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let sum = |part: fn(&RankPlan) -> u64| mib(plan.ranks.iter().map(part).sum());
    let quant = plan.quant.as_deref().unwrap_or("unknown");
    let place = if plan.is_on_host { "of main memory" } else { "of the card" };
    let free = plan.free_bytes.map_or_else(|| "unknown".to_owned(), |free| mib(free).to_string());
    format!(
        "format   {quant}\nserves   {} requests at once, {} tokens of context\n\
         needs    {} MiB: weights {}, keys and values {}, states {}, activations {}, \
         host cache {}\n\
         free     {free} MiB {place}\n",
        plan.max_running,
        plan.context,
        mib(plan.needed_bytes),
        sum(|rank| rank.weight_bytes),
        sum(|rank| rank.kv_bytes),
        sum(|rank| rank.state_bytes),
        sum(|rank| rank.workspace_bytes),
        mib(plan.host_cache_bytes),
    )
}

fn doctor(json: bool) -> anyhow::Result<()> {
    let host = discover::discover();
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&host)?)?;
        return Ok(());
    }
    writeln!(out, "host    {} ({}, Linux {})", host.hostname, host.os, host.kernel)?;
    writeln!(out, "cpu     {}, {} cores", host.cpu.model, host.cpu.cores)?;
    writeln!(out, "memory  {} MiB", host.cpu.memory_mb)?;
    for device in &host.devices {
        let (index, name, memory) = (device.index, &device.name, device.vram_total_mb);
        writeln!(out, "gpu {index}   {name}, {memory} MiB")?;
    }
    if let Some(reason) = &host.cuda_unavailable_reason {
        writeln!(out, "gpu     none used: {reason}")?;
    }
    match cards::best(&HashMap::new()) {
        Some(card) => writeln!(out, "models run on gpu {card}, unless they are told otherwise")?,
        None if cards::are_broken().is_some() => {
            writeln!(out, "models are refused until the driver works, or `device` is \"cpu\"")?;
        }
        None => writeln!(out, "models run on the CPU")?,
    }
    Ok(())
}
