//! Two reports of `bench engine --json`: whether the newer one is slower.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Report;

/// What to compare.
#[derive(Args)]
pub(crate) struct Options {
    /// The snapshot, for example `bench/snapshots/<gpu>/<model>.json`.
    old: PathBuf,
    /// The new report.
    new: PathBuf,
    /// How much slower a figure may be, in percent.
    #[arg(long, default_value_t = 3.0)]
    tolerance: f64,
}

/// A figure of both reports.
struct Pair {
    name: String,
    old: f64,
    new: f64,
}

/// Prints every figure that both reports have; false if one of them is too much slower.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let (old, new) = (read(&options.old)?, read(&options.new)?);
    let device = (&old.device, &new.device);
    let name = |device: &Option<String>| device.clone().unwrap_or_else(|| "a server".to_owned());
    ensure!(
        device.0 == device.1,
        "{} and {} are not the same device",
        name(device.0),
        name(device.1)
    );
    let pairs = pairs(&old, &new);
    ensure!(!pairs.is_empty(), "the reports have no figure in common");
    let mut out = std::io::stdout().lock();
    let mut sound = true;
    for Pair { name, old, new } in pairs {
        let change = 100.0 * (new / old - 1.0);
        let slower = is_slower(old, new, options.tolerance);
        sound &= !slower;
        let mark = if slower { "  SLOWER" } else { "" };
        writeln!(out, "{name:<24} {old:>10.1} {new:>10.1} tok/s {change:>+7.1} %{mark}")?;
    }
    Ok(sound)
}

/// A figure that is no number is slower than any.
fn is_slower(old: f64, new: f64, tolerance: f64) -> bool {
    let enough = new >= old * (1.0 - tolerance / 100.0);
    !enough
}

fn read(path: &Path) -> Result<Report> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    serde_json::from_reader(file).with_context(|| format!("{} is no report", path.display()))
}

fn pairs(old: &Report, new: &Report) -> Vec<Pair> {
    let prefill = old.prefill.iter().filter_map(|old| {
        let new = new.prefill.iter().find(|new| new.tokens == old.tokens)?;
        Some(Pair { name: format!("prefill {}", old.tokens), old: old.tok_s, new: new.tok_s })
    });
    let decode = old.decode.iter().filter_map(|old| {
        let key = (old.depth, old.batch);
        let new = new.decode.iter().find(|new| (new.depth, new.batch) == key)?;
        let name = format!("decode @{} x{}", old.depth, old.batch);
        Some(Pair { name, old: old.tok_s, new: new.tok_s })
    });
    prefill.chain(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_percent_are_allowed_and_no_more() {
        assert!(!is_slower(100.0, 97.0, 3.0));
        assert!(is_slower(100.0, 96.9, 3.0));
        assert!(is_slower(100.0, f64::NAN, 3.0));
    }

    #[test]
    fn figures_are_matched_by_what_was_measured() {
        let report = |json| serde_json::from_value::<Report>(json).unwrap();
        let base = serde_json::json!({
            "model": "m", "architecture": "a", "quant": "q", "device": "d", "threads": 1,
            "weight_bytes": 1, "stream_gb_s": 1.0, "command": "", "sha": "", "date": "",
            "prefill": [{"tokens": 512, "tok_s": 10.0}],
            "decode": [{"depth": 0, "batch": 1, "tok_s": 5.0, "gb_s": 1.0, "share": 0.5}],
        });
        let mut other = base.clone();
        other["prefill"][0]["tokens"] = 4096.into();
        other["decode"][0]["tok_s"] = 4.0.into();
        let pairs = pairs(&report(base), &report(other));
        assert_eq!(pairs.len(), 1);
        assert_eq!((pairs[0].old, pairs[0].new), (5.0, 4.0));
        assert_eq!(pairs[0].name, "decode @0 x1");
    }
}
