//! The `cortex` command.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write, stderr, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use cortex::{Config, LogWriter, Operator, Server, hash_key, new_key, show_top};
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
    Status(Status),
    /// List the models that a running cortex offers.
    Models(Models),
    /// Show nodes, devices and models, live, until `q` is pressed.
    Top(Top),
    /// Print the hash of a key that is read from standard input, for the configuration.
    HashKey(HashKey),
    /// Load a model on the node that suits it best, or on one node.
    Load(Load),
    /// Unload a model, everywhere or on one node.
    Unload(Place),
    /// Load a model on one node, and unload it from another one then.
    Move(Move),
    /// Send nothing new to a node, and place nothing there.
    Drain(Drain),
    /// Give a drained node back.
    Resume(Drain),
    /// Have a running cortex read its files anew.
    Reload(Admin),
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
struct Top {
    /// The running cortex's metrics listener.
    #[arg(long, default_value = "http://127.0.0.1:31314")]
    url: String,
    /// A file with a key that opens its admin routes.
    #[arg(long)]
    key_file: Option<PathBuf>,
}

#[derive(Args)]
struct HashKey {
    /// Make a new random key instead of reading one.
    #[arg(long)]
    new: bool,
}

#[derive(Args)]
struct Models {
    /// The running cortex's base URL, where clients connect.
    #[arg(long, default_value = "http://127.0.0.1:31313")]
    url: String,
    /// A file with a key that opens its models.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Print the raw JSON.
    #[arg(long)]
    json: bool,
}

/// How to reach the operator's side of a running cortex.
#[derive(Args)]
struct Admin {
    /// The running cortex's metrics listener.
    #[arg(long, default_value = "http://127.0.0.1:31314")]
    url: String,
    /// A file with a key that opens its admin routes.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Print the raw JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Status {
    #[command(flatten)]
    admin: Admin,
    /// Say why this model is where it is, and why it is nowhere else.
    #[arg(long, value_name = "MODEL")]
    explain: Option<String>,
}

#[derive(Args)]
struct Place {
    /// The model, or an alias of it.
    model: String,
    /// On this node.
    #[arg(long)]
    node: Option<String>,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args)]
struct Load {
    #[command(flatten)]
    place: Place,
    /// Show the progress until the model is ready.
    #[arg(long)]
    wait: bool,
}

#[derive(Args)]
struct Move {
    /// The model, or an alias of it.
    model: String,
    /// The node that it leaves.
    #[arg(long)]
    from: String,
    /// The node that it goes to.
    #[arg(long)]
    to: String,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args)]
struct Drain {
    /// The node.
    node: String,
    /// Return once no request is open there.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    admin: Admin,
}

impl Admin {
    fn operator(&self) -> anyhow::Result<Operator> {
        let key = read_key(self.key_file.as_deref())?;
        Ok(Operator::new(&self.url, key.as_deref(), self.json)?)
    }
}

fn read_key(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let read = std::fs::read_to_string(file);
    read.with_context(|| format!("{} cannot be read", file.display())).map(Some)
}

async fn operate(command: &Command) -> anyhow::Result<()> {
    let mut out = stdout();
    match command {
        Command::Load(Load { place: Place { model, node, admin }, wait }) => {
            admin.operator()?.load(model, node.as_deref(), *wait, &mut out).await?;
        }
        Command::Unload(Place { model, node, admin }) => {
            admin.operator()?.unload(model, node.as_deref(), &mut out).await?;
        }
        Command::Move(Move { model, from, to, admin }) => {
            admin.operator()?.move_model(model, from, to, &mut out).await?;
        }
        Command::Drain(Drain { node, wait, admin }) => {
            admin.operator()?.drain(node, true, *wait, &mut out).await?;
        }
        Command::Resume(Drain { node, wait, admin }) => {
            admin.operator()?.drain(node, false, *wait, &mut out).await?;
        }
        Command::Reload(admin) => admin.operator()?.reload(&mut out).await?,
        Command::Status(Status { admin, explain: Some(model) }) => {
            admin.operator()?.explain(model, &mut out).await?;
        }
        Command::Status(Status { admin, explain: None }) => {
            admin.operator()?.status(&mut out).await?;
        }
        _ => {}
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command;
    let ended = match command {
        Command::Serve(args) => serve(args).await,
        Command::Models(models) => list_models(&models).await,
        Command::Top(top) => show_top(&top.url, top.key_file.as_deref()).await.map_err(Into::into),
        Command::HashKey(args) => print_hash(&args),
        Command::CheckConfig(file) => check_config(&file),
        command => operate(&command).await,
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

async fn list_models(asked: &Models) -> anyhow::Result<()> {
    let key = read_key(asked.key_file.as_deref())?;
    let operator = Operator::new(&asked.url, key.as_deref(), asked.json)?;
    Ok(operator.models(&mut stdout()).await?)
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
    let models = config.check_models()?;
    let (path, count) = (file.config.display(), config.neurons.len());
    let listen = config.gateway.listen;
    writeln!(stdout(), "{path}: good; neurons: {count}, models: {models}, listens on {listen}")?;
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
