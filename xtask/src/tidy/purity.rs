//! R6: libraries read no environment and no clock, and their errors have types.

use super::Finding;
use super::scan;
use super::tree::{File, Tree};

/// The crates that are programs; only they meet the outside world.
const PROGRAMS: [&str; 4] = ["bench", "cortex", "neuron", "xtask"];

/// What only tests link; the crate diagram keeps it out of every product.
const TESTS_ONLY: &str = "testkit";

/// The crates in which not even a span of time may be asked for.
const TIMELESS: [&str; 4] = ["control", "dialog", "fleet", "scheduler"];

/// What a library may not say, and what to do instead.
const IMPURE: [(&str, &str); 6] = [
    ("std::env", "take the value as an argument; the program reads the environment"),
    ("env::var", "take the value as an argument; the program reads the environment"),
    ("Instant::now", "take `now` as an argument; the program reads the clock"),
    ("SystemTime::now", "take `now` as an argument; the program reads the clock"),
    ("thread_rng", "take a seed as an argument"),
    ("anyhow::", "give the library's error enum a variant that a caller can act on"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in tree.crates.iter().filter(|krate| !PROGRAMS.contains(&krate.name.as_str())) {
        if krate.direct.contains("anyhow") {
            findings.push(Finding {
                rule: "R6",
                path: format!("{}/Cargo.toml", krate.dir),
                line: 0,
                what: format!("the library {} depends on anyhow", krate.name),
                mend: "use one thiserror enum whose variants are decisions of the caller",
            });
        }
    }
    for file in tree.files.iter().filter(|file| file.is_rust() && !file.is_test_or_build()) {
        let Some(krate) = tree.crate_of(file) else { continue };
        if PROGRAMS.contains(&krate.name.as_str()) || krate.name == TESTS_ONLY {
            continue;
        }
        words(file, &IMPURE, "R6", &mut findings);
        if TIMELESS.contains(&krate.name.as_str()) {
            let mend = "pass `now: Tick`; a pure crate has no clock and no runtime";
            let banned = [("Instant", mend), ("SystemTime", mend), ("async fn", mend)];
            words(file, &banned, "R1", &mut findings);
        }
    }
    findings
}

fn words(
    file: &File,
    banned: &[(&'static str, &'static str)],
    rule: &'static str,
    findings: &mut Vec<Finding>,
) {
    let tests = scan::test_spans(&file.code);
    for (word, mend) in banned {
        let whole = |at: usize| {
            let ends = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            let after = &file.code[at + word.len()..];
            ends(file.code[..at].chars().next_back())
                && (word.ends_with("::") || word.starts_with("env::") || ends(after.chars().next()))
        };
        for (at, _) in file.code.match_indices(word).filter(|(at, _)| whole(*at)) {
            if tests.iter().any(|span| span.contains(&at)) {
                continue;
            }
            let what = format!("a library says `{word}`");
            findings.push(Finding::at(rule, file, at, what, mend));
        }
    }
}
