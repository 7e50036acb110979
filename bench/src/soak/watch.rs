//! What the server holds: blocks and slots, and memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::client::Client;

/// What an engine says that it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Idle {
    running: Value,
    waiting: Value,
    kv_blocks_free: Value,
    state_slots_free: Value,
}

/// Asks a neuron's `/health` what the engine of `model` holds.
pub(super) async fn idle(client: &Client, neuron: &str, model: &str) -> Result<Idle> {
    let health = client.get(&format!("{}/health", neuron.trim_end_matches('/'))).await?;
    let models = health["models"].as_array().context("/health lists no models")?;
    let report = models.iter().find(|report| report["id"] == model);
    let report = report.with_context(|| format!("the neuron has no model `{model}`"))?;
    let count = |field: &str| report[field].clone();
    Ok(Idle {
        running: count("running"),
        waiting: count("waiting"),
        kv_blocks_free: count("kv_blocks_free"),
        state_slots_free: count("state_slots_free"),
    })
}

/// Resident memory over time.
#[derive(Default)]
pub(super) struct Memory {
    /// Seconds since the begin, and MiB.
    readings: Vec<(u64, f64)>,
}

impl Memory {
    /// Reads until it is dropped, or until the process is gone, which is an error.
    pub(super) async fn read_every(&mut self, pause: Duration, pid: u32) -> Result<()> {
        let begin = Instant::now();
        loop {
            let bytes = resident_with_children(pid).await?;
            self.readings.push((begin.elapsed().as_secs(), bytes as f64 / (1 << 20) as f64));
            tokio::time::sleep(pause).await;
        }
    }

    /// The median MiB of each whole or begun minute.
    pub(super) fn by_minute(&self) -> Vec<f64> {
        let minutes = self.readings.last().map_or(0, |(second, _)| second / 60 + 1);
        let of = |minute| {
            let of = self.readings.iter().filter(|(second, _)| second / 60 == minute);
            let mut sorted: Vec<f64> = of.map(|(_, mib)| *mib).collect();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied().unwrap_or_default()
        };
        (0..minutes).map(of).collect()
    }

    /// The last minute over the second: in the first, pools and caches fill for good.
    pub(super) fn growth_percent(&self) -> Option<f64> {
        let minutes = self.by_minute();
        let (second, last) = (*minutes.get(1)?, *minutes.get(2..)?.last()?);
        Some((last / second - 1.0) * 100.0)
    }
}

/// Resident bytes of a process and all below it.
async fn resident_with_children(pid: u32) -> Result<u64> {
    let mut bytes = 0;
    let mut rest = vec![pid];
    while let Some(pid) = rest.pop() {
        let process = Path::new("/proc").join(pid.to_string());
        let Ok(status) = tokio::fs::read_to_string(process.join("status")).await else {
            // A child may end between two looks; the server itself may not.
            anyhow::ensure!(bytes > 0, "process {pid} is gone");
            continue;
        };
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        bytes += kib.unwrap_or_default() * 1024;
        rest.extend(children(&process).await);
    }
    Ok(bytes)
}

/// Children of every thread of a process.
async fn children(process: &Path) -> Vec<u32> {
    let mut all = Vec::new();
    let Ok(mut threads) = tokio::fs::read_dir(process.join("task")).await else { return all };
    while let Ok(Some(thread)) = threads.next_entry().await {
        let list = tokio::fs::read_to_string(thread.path().join("children")).await;
        all.extend(list.unwrap_or_default().split_whitespace().flat_map(str::parse::<u32>));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_compares_the_last_minute_with_the_second() {
        let minute = |minute: u64, mib: f64| (0..12).map(move |at| (minute * 60 + at * 5, mib));
        let mut memory = Memory::default();
        memory.readings.extend(minute(0, 10.0).chain(minute(1, 100.0)));
        assert_eq!(memory.growth_percent(), None, "two minutes say nothing");
        memory.readings.extend(minute(2, 104.0));
        assert_eq!(memory.by_minute(), [10.0, 100.0, 104.0]);
        assert_eq!(memory.growth_percent().map(f64::round), Some(4.0));
    }

    #[tokio::test]
    async fn a_process_is_as_large_as_it_and_its_children() {
        let own = resident_with_children(std::process::id()).await.expect("this process lives");
        assert!(own > 1 << 20, "{own} bytes");
        let gone = resident_with_children(u32::MAX).await;
        assert!(gone.is_err());
    }
}
