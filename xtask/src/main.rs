//! What the repository does for itself: the demo and the rules.
#![forbid(unsafe_code)]

mod demo;
mod tidy;
mod toolkit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Tasks of the repository.
#[derive(Parser)]
#[command(name = "xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build both programs, chat through them and serve until Ctrl-C.
    Demo(demo::Options),
    /// Check the rules of ARCHITECTURE.md.
    Tidy,
    /// Fetch the CUDA compiler into the target folder, so that the feature `cuda` can be compiled.
    CudaToolkit,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.task {
        Task::Demo(options) => demo::run(&repository()?, options)?,
        Task::CudaToolkit => toolkit::fetch(&repository()?)?,
        Task::Tidy => eprintln!("{}", tidy::check(&repository()?)?),
    }
    Ok(())
}

/// The repository's root: the parent of this crate's directory.
///
/// Cargo says it at run time as well. That counts more than what was compiled in, since a target
/// directory may be shared by several checkouts.
fn repository() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map(Path::to_path_buf).context("xtask does not lie in a repository")
}
