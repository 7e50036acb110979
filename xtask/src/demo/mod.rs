//! `cargo demo`: the whole road on one machine. It builds both programs, starts them on loopback
//! with a temporary configuration, streams one chat through cortex and serves until Ctrl-C.

mod binaries;
mod chat;
mod daemon;
mod ports;
mod progress;
mod ready;
mod setup;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use chat::Chat;
use daemon::Daemon;
use ports::Ports;
use setup::Setup;
use watch::Watch;

/// What is asked when nobody says what to ask.
const PROMPT: &str = "What is a neuron?";

/// What the demo can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// Answer this prompt and exit; the answer alone goes to stdout.
    #[arg(long, value_name = "PROMPT")]
    once: Option<String>,
    /// The port of cortex; its neuron takes another one.
    #[arg(long, default_value_t = 31313, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// A model's directory or GGUF file [default: models/sprout].
    #[arg(long, value_name = "DIR_OR_GGUF")]
    model: Option<PathBuf>,
}

/// Runs the demo in the repository at `root`.
///
/// Both programs are stopped and the temporary files are gone when it returns, however it returns.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let watch = Watch::new()?;
    let model = setup::model(root, options.model.as_deref())?;
    let ports = Ports::choose(options.port)?;
    let binaries = binaries::build(root, &watch)?;
    let setup = Setup::write(&model, &ports)?;
    // The gateway is declared last, so it is stopped first and no request meets a dying neuron.
    let mut neuron = Daemon::start("neuron", &binaries.neuron, &setup.neuron_toml, &setup)?;
    ready::neuron(&mut neuron, &watch, &ports.neuron_url(), &model.id)?;
    let mut cortex = Daemon::start("cortex", &binaries.cortex, &setup.cortex_toml, &setup)?;
    ready::cortex(&mut [&mut neuron, &mut cortex], &watch, &ports.cortex_url(), &model.id)?;

    let prompt = options.once.as_deref().unwrap_or(PROMPT);
    let chat = Chat { url: ports.cortex_url(), model: model.id.clone(), prompt: prompt.to_owned() };
    if options.once.is_none() {
        eprintln!("\nyou: {prompt}");
        eprint!("{}: ", model.id);
    }
    let timing = chat::stream(chat, &mut [&mut neuron, &mut cortex], &watch)?;
    writeln!(std::io::stdout())?;
    eprintln!("\n{timing}");
    if options.once.is_some() {
        return Ok(());
    }
    announce(&ports, &model.id, &setup);
    serve(&mut [&mut neuron, &mut cortex], &watch)
}

fn announce(ports: &Ports, model: &str, setup: &Setup) {
    let (cortex, neuron) = (ports.cortex_url(), ports.neuron_url());
    eprintln!("\ncortex  {cortex}/v1  (OpenAI-compatible)");
    eprintln!("neuron  {neuron}");
    eprintln!("logs    {}", setup.directory().display());
    eprintln!("\ncurl -N {cortex}/v1/chat/completions -H 'content-type: application/json' \\");
    eprintln!("  -d '{}'", curl_body(model));
    eprintln!("\nserving until Ctrl-C");
}

fn curl_body(model: &str) -> serde_json::Value {
    let messages = [serde_json::json!({"role": "user", "content": PROMPT})];
    serde_json::json!({"model": model, "stream": true, "messages": messages})
}

/// Waits for Ctrl-C, which is how this ends well, or for a program that dies, which is not.
fn serve(daemons: &mut [&mut Daemon], watch: &Watch) -> Result<()> {
    while !watch.stopped_within(daemon::CHECK_INTERVAL) {
        daemon::all_alive(daemons)?;
    }
    eprintln!("\nstopping");
    Ok(())
}
