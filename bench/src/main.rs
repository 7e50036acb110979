//! Measures an engine, or a server that runs: its speed, how many held-out questions it answers
//! right, what the gateway adds to the time to first token, what the second turn of a conversation
//! costs, and whether a long day leaves a trace. Every figure in the documents names its command
//! here.
#![forbid(unsafe_code)]

mod client;
mod engine;
mod gateways;
mod quartiles;
mod random_model;
mod score;
mod soak;
mod sse;
mod ttft;
mod turns;

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
    /// Compare two reports of `engine --json`; fails where the newer one is slower.
    Compare(engine::compare::Options),
    /// What gateways add, beside one another and beside none.
    Gateways(gateways::Options),
    /// An engine that costs next to nothing, to put gateways before.
    Mock(gateways::mock::Options),
    /// Write a model of a known shape and random weights, to measure with.
    RandomModel(random_model::Options),
    /// Ask a held-out set and count the right answers.
    Score(score::Options),
    /// Many clients for a long time: answers, leaks, memory.
    Soak(soak::Options),
    /// Time to first token, directly and through the gateway, in turns.
    Ttft(ttft::Options),
    /// The second turn of a long conversation beside the first.
    Turns(turns::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().measure {
        Measure::Engine(options) => engine::run(&options).await.map(|()| true),
        Measure::Compare(options) => engine::compare::run(&options),
        Measure::Gateways(options) => gateways::run(options).await,
        Measure::Mock(options) => gateways::mock::run(options).await,
        Measure::RandomModel(options) => random_model::run(&options).map(|()| true),
        Measure::Score(options) => score::run(options).await,
        Measure::Soak(options) => soak::run(options).await,
        Measure::Ttft(options) => ttft::run(options).await,
        Measure::Turns(options) => turns::run(options).await,
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
