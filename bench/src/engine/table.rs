//! The figures, for people or for programs.

use std::io::Write;

use anyhow::Result;

use super::classes::ClassTime;
use super::stall::{Gaps, Short, Stall};
use super::{Decode, Report};

pub(super) fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", table(report))?;
    }
    Ok(())
}

fn table(report: &Report) -> String {
    let mut lines = vec![title(report)];
    if let Some(stream) = report.stream_gb_s {
        lines.push(format!("memory reads {stream:.1} GB/s"));
    }
    lines.push(format!("\n{:>8} {:>12}", "prefill", "tok/s"));
    for row in &report.prefill {
        lines.push(format!("{:>8} {:>12.1}", row.tokens, row.tok_s));
    }
    lines.push(format!(
        "\n{:>8} {:>6} {:>12} {:>9} {:>7}",
        "depth", "batch", "tok/s", "GB/s", "share"
    ));
    lines.extend(report.decode.iter().map(decode));
    lines.extend(report.decode.iter().flat_map(classes));
    if let Some(stall) = &report.stall {
        lines.extend(waits(stall));
    }
    lines.join("\n") + "\n"
}

fn title(report: &Report) -> String {
    let Report { model, architecture, quant, device, threads, .. } = report;
    match (architecture, quant, device, threads) {
        (Some(architecture), Some(quant), Some(device), Some(threads)) => {
            format!("{model}: {architecture}, {quant}, on {device}, {threads} threads")
        }
        _ => model.clone(),
    }
}

fn decode(row: &Decode) -> String {
    let known = |figure: Option<f64>, unit: &str, digits| match figure {
        Some(figure) => format!("{figure:.digits$}{unit}"),
        None => "-".to_owned(),
    };
    let Decode { depth, batch, tok_s, gb_s, share, .. } = row;
    let (gb_s, share) = (known(*gb_s, "", 2), known(share.map(|share| 100.0 * share), "%", 1));
    format!("{depth:>8} {batch:>6} {tok_s:>12.1} {gb_s:>9} {share:>7}")
}

/// Where a step's time goes, if it is known.
fn classes(row: &Decode) -> Vec<String> {
    let Decode { depth, batch, tok_s, classes, .. } = row;
    if classes.is_empty() {
        return Vec::new();
    }
    let whole = 1e6 * f64::from(*batch) / tok_s;
    let sum: f64 = classes.iter().map(|class| class.micros).sum();
    let mut lines = vec![
        format!(
            "\na step @{depth} x{batch} takes {whole:.0} us; its launches, each alone, {sum:.0} us:"
        ),
        format!("{:>12} {:>9} {:>9} {:>7} {:>9}", "class", "launches", "us", "share", "GB/s"),
    ];
    lines.extend(classes.iter().map(|ClassTime { class, launches, micros, gb_s }| {
        let gb_s = gb_s.map_or("-".to_owned(), |gb_s| format!("{gb_s:.0}"));
        let share = 100.0 * micros / sum;
        format!("{class:>12} {launches:>9} {micros:>9.1} {share:>6.1}% {gb_s:>9}")
    }));
    lines
}

fn waits(stall: &Stall) -> Vec<String> {
    let Stall { prompt_tokens, allowed_ms, alone, beside, tok_s, short } = stall;
    let row = |name: &str, Gaps { p50_ms, p99_ms, max_ms }: &Gaps| {
        format!("{name:>8} {p50_ms:>12.1} {p99_ms:>12.1} {max_ms:>12.1}")
    };
    let mut lines = vec![
        format!(
            "\na stream beside a prompt of {prompt_tokens} tokens ({tok_s:.1} tok/s), at most \
             {allowed_ms} ms a step"
        ),
        format!("{:>8} {:>12} {:>12} {:>12}", "gap, ms", "p50", "p99", "max"),
        row("alone", alone),
        row("beside", beside),
    ];
    lines.extend(short.as_ref().map(|Short { tokens, alone_ms, behind_ms }| {
        format!(
            "a prompt of {tokens} tokens has its first token after {alone_ms:.0} ms, and after \
             {behind_ms:.0} ms when it comes behind that one"
        )
    }));
    lines
}
