//! The figures, for people or for programs.

use std::io::Write;

use anyhow::Result;

use super::Report;

pub(super) fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
        return Ok(());
    }
    let Report { model, architecture, quant, device, stream_gb_s, .. } = report;
    writeln!(out, "{model}: {architecture}, {quant}, on {device}, {} threads", report.threads)?;
    writeln!(out, "memory reads {stream_gb_s:.1} GB/s\n")?;
    writeln!(out, "{:>8} {:>12}", "prefill", "tok/s")?;
    for row in &report.prefill {
        writeln!(out, "{:>8} {:>12.1}", row.tokens, row.tok_s)?;
    }
    writeln!(out, "\n{:>8} {:>6} {:>12} {:>9} {:>7}", "depth", "batch", "tok/s", "GB/s", "share")?;
    for row in &report.decode {
        let share = 100.0 * row.share;
        let (depth, batch) = (row.depth, row.batch);
        writeln!(out, "{depth:>8} {batch:>6} {:>12.1} {:>9.2} {share:>6.1}%", row.tok_s, row.gb_s)?;
    }
    Ok(())
}
