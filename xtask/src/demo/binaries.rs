//! Builds the two programs, with cargo's own progress on the terminal.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::daemon::{CHECK_INTERVAL, Group};
use super::watch::Watch;

/// Release builds of both programs.
pub(crate) struct Binaries {
    pub(crate) cortex: PathBuf,
    pub(crate) neuron: PathBuf,
}

/// Builds what is not built yet; the first time this takes minutes.
pub(crate) fn build(root: &Path, watch: &Watch) -> Result<Binaries> {
    let target = target_directory(root)?;
    eprintln!("building neuron and cortex (cargo build --release)");
    let mut build = cargo(root);
    build.args(["build", "--release", "--package", "neuron", "--package", "cortex"]);
    let mut build = Group::spawn(&mut build).context("cargo cannot be run; is it in PATH?")?;
    let status = loop {
        if let Some(status) = build.ended().context("cargo is out of reach")? {
            break status;
        }
        watch.pause(CHECK_INTERVAL)?;
    };
    if !status.success() {
        bail!("the build failed ({status}); cargo's message is above");
    }
    let binary = |name: &str| {
        let path = target.join("release").join(name);
        match path.is_file() {
            true => Ok(path),
            false => bail!("cargo built no {}; is build.target set?", path.display()),
        }
    };
    Ok(Binaries { cortex: binary("cortex")?, neuron: binary("neuron")? })
}

/// Asked of cargo, since the user may have moved it.
fn target_directory(root: &Path) -> Result<PathBuf> {
    let arguments = ["metadata", "--no-deps", "--format-version=1"];
    let output =
        cargo(root).args(arguments).output().context("cargo cannot be run; is it in PATH?")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata's answer is no JSON")?;
    let directory = metadata["target_directory"].as_str();
    directory.map(PathBuf::from).context("cargo metadata names no target_directory")
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}
