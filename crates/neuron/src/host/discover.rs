//! What this host is: `GET /discovery`.

use std::fs;
use std::thread;

use control::{Cpu, Discovery};

use crate::host::cards::{self, Cards};

use crate::models::served::NATIVE;

/// Reads the host's own files; nothing here can fail, and what is not known is left empty.
pub fn discover() -> Discovery {
    let Cards { cuda_version, driver_version, devices, unused_because } = cards::look();
    Discovery {
        hostname: line("/proc/sys/kernel/hostname"),
        os: os_name(),
        kernel: line("/proc/sys/kernel/osrelease"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cuda_version,
        driver_version,
        devices,
        cpu: Cpu {
            model: cpu_model(),
            cores: thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            memory_mb: memory_kib("MemTotal").unwrap_or(0) / 1024,
        },
        harnesses: vec![NATIVE.to_owned()],
        cuda_unavailable_reason: unused_because,
    }
}

/// Bytes of main memory that a new process could have, as the kernel estimates it.
pub fn available_memory_bytes() -> Option<u64> {
    memory_kib("MemAvailable").map(|kib| kib * 1024)
}

fn memory_kib(name: &str) -> Option<u64> {
    proc_field("/proc/meminfo", name)?.split_whitespace().next()?.parse().ok()
}

fn os_name() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    pretty_name(&release).unwrap_or_else(|| std::env::consts::OS.to_owned())
}

fn pretty_name(release: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches('"').to_owned())
}

fn cpu_model() -> String {
    // Arm kernels name no model; the architecture is what is left to say.
    proc_field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn proc_field(path: &str, name: &str) -> Option<String> {
    field(&fs::read_to_string(path).ok()?, name)
}

fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text =
            "MemTotalX: 1 kB\nMemTotal:       2048 kB\nmodel name\t: Abacus 9 @ 3GHz: fast\n";
        assert_eq!(field(text, "MemTotal").as_deref(), Some("2048 kB"));
        assert_eq!(field(text, "model name").as_deref(), Some("Abacus 9 @ 3GHz: fast"));
        assert_eq!(field(text, "MemFree"), None);
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"X 1\"\n").as_deref(), Some("X 1"));
    }

    #[test]
    fn a_host_without_a_gpu_is_described_and_is_no_error() {
        let host = discover();
        assert!(!host.devices.is_empty() || host.cuda_unavailable_reason.is_some());
        assert!(host.cpu.cores >= 1);
        assert!(host.cpu.memory_mb > 0);
        assert!(!host.kernel.is_empty());
    }
}
