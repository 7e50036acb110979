//! The `neuron` program.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use model::Recipe;
use neuron::config::Config;
use neuron::lifecycle::RestartPolicy;
use neuron::process::EngineProgram;
use neuron::serve::Daemon;
use neuron::{discover, logging};
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
    /// Say what was found on this host and what models would run on.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve { config } => serve(config.as_deref()),
        Command::Engine => {
            start_log();
            return neuron::child::run(neuron::native::load);
        }
        Command::CheckConfig { config, print_config } => {
            check_config(config.as_deref(), print_config)
        }
        Command::Convert { source, out, quant } => convert(&source, &out, &quant),
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
    let program = EngineProgram {
        path: std::env::current_exe().context("the path of this program")?,
        args: vec![OsString::from("engine")],
        step_timeout: Duration::from_secs(config.harness.native.step_timeout_secs),
    };
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
    match neuron::cards::best() {
        Some(card) => writeln!(out, "models run on gpu {card}, unless they are told otherwise")?,
        None => writeln!(out, "models run on the CPU")?,
    }
    Ok(())
}
