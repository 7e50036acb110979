//! R4 and R5: where `unsafe`, the `cuda` feature and each dialect may stand.

use super::Finding;
use super::scan;
use super::tree::{File, Tree};

/// Where `unsafe` and the `cuda` feature may stand; everything else forbids them.
const CLOSE_TO_THE_METAL: [&str; 3] =
    ["crates/kernels/", "crates/model/src/comm/", "crates/model/src/load/mmap.rs"];

/// The crates that hold such a place: they cannot forbid, the second one denies instead.
const HOLDERS: [&str; 2] = ["kernels", "model"];

const WIRE: &str = "crates/wire/src/";
const DIALECTS: [&str; 4] = ["openai_chat", "openai_completions", "openai_responses", "anthropic"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        metal(file, &mut findings);
        dialects(file, &mut findings);
    }
    roots(tree, &mut findings);
    findings
}

fn metal(file: &File, findings: &mut Vec<Finding>) {
    if CLOSE_TO_THE_METAL.iter().any(|place| file.path.starts_with(place)) {
        return;
    }
    let mut found = |at: usize, what: &str| {
        let what =
            format!("{what} stands outside kernels, model/src/comm and model/src/load/mmap.rs");
        let mend = "move it behind a safe function there, or use a crate that wraps it";
        findings.push(Finding::at("R4", file, at, what, mend));
    };
    for (at, _) in scan::words(&file.code).filter(|(_, word)| *word == "unsafe") {
        found(at, "`unsafe`");
    }
    let text = scan::without_comments(&file.text);
    for (at, _) in text.match_indices("feature") {
        let value = text[at + "feature".len()..].trim_start().strip_prefix('=');
        if value.is_some_and(|value| value.trim_start().starts_with("\"cuda\"")) {
            found(at, "the feature `cuda`");
        }
    }
}

fn roots(tree: &Tree, findings: &mut Vec<Finding>) {
    for krate in &tree.crates {
        let allowed: &[&str] = match HOLDERS.iter().position(|name| *name == krate.name) {
            Some(0) => continue,
            Some(_) => &["#![forbid(unsafe_code)]", "#![deny(unsafe_code)]"],
            None => &["#![forbid(unsafe_code)]"],
        };
        for file in krate.roots.iter().filter_map(|path| tree.file(path)) {
            if !allowed.iter().any(|attribute| file.code.contains(attribute)) {
                findings.push(Finding {
                    rule: "R4",
                    path: file.path.clone(),
                    line: 1,
                    what: "the crate does not forbid unsafe code".to_owned(),
                    mend: "write `#![forbid(unsafe_code)]` below the crate's doc comment",
                });
            }
        }
    }
}

fn dialects(file: &File, findings: &mut Vec<Finding>) {
    let Some(inside) = file.path.strip_prefix(WIRE) else { return };
    let own = inside.split(['/', '.']).next().unwrap_or_default();
    if !DIALECTS.contains(&own) {
        return;
    }
    let others = |word: &str| word != own && DIALECTS.contains(&word);
    for (at, word) in scan::words(&file.code).filter(|(_, word)| others(word)) {
        let what = format!("the dialect {own} names the dialect {word}");
        let mend = "go through dialog: parse one, project the other";
        findings.push(Finding::at("R5", file, at, what, mend));
    }
}
