//! The `cortex` command.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write, stderr, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use cortex::{Config, LogWriter, Server, hash_key, new_key, print_models, print_status};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The gateway of a fleet of neurons: one address for every model.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Route requests to the configured neurons until a signal to stop.
    Serve(Serve),
    /// Show the nodes, devices, models and queues that a running cortex sees.
    Status(Ask<31314>),
    /// List the models that a running cortex offers.
    Models(Ask<31313>),
    /// Print the hash of a key that is read from standard input, for the configuration.
    HashKey(HashKey),
    /// Read the configuration as `serve` would, and say what is wrong with it.
    CheckConfig(ConfigFile),
}

/// How long the end of the log may take to write.
const LAST_LINES: Duration = Duration::from_millis(500);

#[derive(Args)]
struct ConfigFile {
    /// The configuration file; CORTEX_ variables override it.
    #[arg(long, default_value = "/etc/cortex/cortex.toml")]
    config: PathBuf,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// Serve without keys on an address that other hosts can reach.
    #[arg(long)]
    allow_unauthenticated: bool,
}

#[derive(Args)]
struct HashKey {
    /// Make a new random key instead of reading one.
    #[arg(long)]
    new: bool,
}

#[derive(Args)]
struct Ask<const PORT: u16> {
    /// The running cortex's base URL: for `models` where clients connect, for `status` its metrics
    /// listener.
    #[arg(long, default_value_t = format!("http://127.0.0.1:{PORT}"))]
    url: String,
    /// Print the raw JSON.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Serve(args) => serve(args).await,
        Command::Status(ask) => {
            print_status(&ask.url, ask.json, &mut stdout()).await.map_err(Into::into)
        }
        Command::Models(ask) => {
            print_models(&ask.url, ask.json, &mut stdout()).await.map_err(Into::into)
        }
        Command::HashKey(args) => print_hash(&args),
        Command::CheckConfig(file) => check_config(&file),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere is left to complain to when standard error is closed.
            let _ = writeln!(stderr(), "cortex: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Serve) -> anyhow::Result<()> {
    let mut config = Config::load(&args.file.config)?;
    config.gateway.allow_unauthenticated |= args.allow_unauthenticated;
    let log = start_log()?;
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::bind(config).await?;
    let (addr, metrics) = (server.addr(), server.metrics_addr());
    tracing::info!(%addr, %metrics, version = env!("CARGO_PKG_VERSION"), "cortex listens");
    server
        .run(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        })
        .await;
    log.drain(LAST_LINES);
    Ok(())
}

/// A key is never an argument: those are seen by all users of the host.
fn print_hash(args: &HashKey) -> anyhow::Result<()> {
    let mut out = stdout();
    if args.new {
        let key = new_key();
        writeln!(out, "key    {key}\nsha256 {}", hash_key(key.as_bytes()))?;
        return Ok(());
    }
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let key = line.trim();
    anyhow::ensure!(!key.is_empty(), "no key on standard input; write one, or use --new");
    writeln!(out, "{}", hash_key(key.as_bytes()))?;
    Ok(())
}

fn check_config(file: &ConfigFile) -> anyhow::Result<()> {
    let config = Config::load(&file.config)?;
    config.check_exposure()?;
    let (path, count) = (file.config.display(), config.neurons.len());
    writeln!(stdout(), "{path}: good; neurons: {count}, listens on {}", config.gateway.listen)?;
    Ok(())
}

fn start_log() -> anyhow::Result<LogWriter> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let writer = LogWriter::start(stderr())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .with_writer(writer.clone())
        .init();
    Ok(writer)
}
