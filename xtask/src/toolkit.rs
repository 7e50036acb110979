//! `cargo xtask cuda-toolkit`: the CUDA compiler, so that any machine can compile the feature
//! `cuda`.
//!
//! NVIDIA publishes its toolkit in parts on PyPI. They are put into the project's own target
//! folder, where the build script of `kernels` looks for them; nothing is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where they go, from the repository's root.
const FOLDER: &str = "target/cuda-toolkit";

/// The compiler and what it needs: front end, assembler, device library and headers.
const WHEELS: [&str; 5] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
];

/// Fetches the toolkit, unless this very one is there.
pub(crate) fn fetch(repository: &Path) -> Result<()> {
    let folder = repository.join(FOLDER);
    let record = folder.join("wheels.txt");
    let wanted = WHEELS.join("\n");
    if fs::read_to_string(&record).is_ok_and(|there| there == wanted) {
        eprintln!("the toolkit is in {FOLDER} already");
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {FOLDER}"))?;
    }
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--target"])
        .arg(&folder)
        .args(WHEELS)
        .status()
        .context("cannot run python3, whose pip fetches the toolkit")?;
    ensure!(status.success(), "pip could not fetch the toolkit: {status}");
    // Written last, so that half a toolkit is not taken for one.
    fs::write(&record, wanted).with_context(|| format!("cannot write {}", record.display()))?;
    eprintln!("the toolkit is in {FOLDER}");
    Ok(())
}
