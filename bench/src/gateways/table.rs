//! The lines of `bench gateways`, for documents.

use std::io::Write;

use anyhow::Result;

use super::Line;

pub(super) fn print(lines: &[Line], json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, lines)?;
        return Ok(writeln!(out)?);
    }
    let columns = [
        "gateway",
        "c=1 p50 us",
        "c=16 req/s / p50 / p99 ms",
        "CPU us a request",
        "32 KB req/s / CPU us",
        "TTFT p50 / p99 ms",
        "chunks",
        "CPU us a stream",
        "PSS idle / load MB",
        "KB a stream",
        "KB idle",
    ];
    writeln!(out, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    for line in lines {
        writeln!(out, "{}", row(line))?;
    }
    writeln!(out, "\nload average {}", load_average())?;
    Ok(())
}

fn row(line: &Line) -> String {
    format!(
        "| {} | {:.0} ({:.0}-{:.0}) | {:.0} / {:.2} / {:.2} | {:.0} | {:.0} / {:.0} \
         | {:.2} / {:.1} | {:.1} | {:.0} | {:.1} / {:.1} | {:.1} | {:.1} |",
        line.name,
        line.one_p50_us.median,
        line.one_p50_us.lower,
        line.one_p50_us.upper,
        line.requests_per_sec.median,
        line.request_p50_ms,
        line.request_p99_ms,
        line.cpu_us,
        line.large_requests_per_sec.median,
        line.large_cpu_us,
        line.ttft_p50_ms.median,
        line.ttft_p99_ms,
        line.chunks_a_stream,
        line.stream_cpu_us,
        line.pss_idle_mb,
        line.pss_loaded_mb,
        line.kb_an_open_stream,
        line.kb_an_idle_connection,
    )
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}
