//! What a gateway's processes use, by the system's books.

use std::fs;

/// A process and its descendants.
#[derive(Clone, Copy)]
pub(super) struct Tree {
    pid: u32,
}

impl Tree {
    /// Of no process when `pid` is 0.
    pub(super) fn of(pid: u32) -> Tree {
        Tree { pid }
    }

    fn pids(self) -> Vec<u32> {
        if self.pid == 0 {
            return Vec::new();
        }
        let mut found = vec![self.pid];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            next += 1;
            let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for thread in threads.flatten() {
                let children = fs::read_to_string(thread.path().join("children"));
                let children = children.unwrap_or_default();
                found.extend(
                    children.split_ascii_whitespace().filter_map(|c| c.parse::<u32>().ok()),
                );
            }
        }
        found
    }

    /// Microseconds on a processor so far, in user and system code.
    pub(super) fn cpu_us(self) -> f64 {
        self.pids().into_iter().map(cpu_us).sum()
    }

    /// Proportional set size.
    pub(super) fn pss_mb(self) -> f64 {
        self.pids().into_iter().map(pss_kb).sum::<f64>() / 1024.0
    }
}

/// Threads are counted one by one in nanoseconds; the clock ticks of `stat` are 10 ms.
fn cpu_us(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let nanos = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e3
}

fn pss_kb(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let tree = Tree::of(std::process::id());
        assert!(tree.pids().contains(&std::process::id()));
        assert!(tree.pss_mb() > 0.1, "{}", tree.pss_mb());
        assert!(tree.cpu_us() > 0.0);
        assert_eq!(Tree::of(0).cpu_us(), 0.0);
    }
}
