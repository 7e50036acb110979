//! Measures an engine, or a server that runs: its speed, how many held-out questions it answers
//! right, and what the gateway adds to the time to first token. Every figure in the documents names
//! its command here.
#![forbid(unsafe_code)]

mod client;
mod engine;
mod score;
mod sse;
mod ttft;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures an engine, or a server over its HTTP API.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// Prefill and decode speed of an engine, without a server.
    Engine(engine::Options),
    /// Ask a held-out set and count the right answers.
    Score(score::Options),
    /// Time to first token, directly and through the gateway, in turns.
    Ttft(ttft::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().measure {
        Measure::Engine(options) => engine::run(&options).map(|()| true),
        Measure::Score(options) => score::run(options).await,
        Measure::Ttft(options) => ttft::run(options).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
