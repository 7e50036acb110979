//! R1, R2, R3 and the crate diagram: who may depend on whom.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::{Crate, Tree};

/// Which crates of the workspace a crate may name. `testkit` may be a dev-dependency of any.
const EDGES: [(&str, &[&str]); 15] = [
    ("bench", &["engine", "kernels", "model"]),
    ("control", &[]),
    ("cortex", &["control", "dialog", "fleet", "traces", "wire"]),
    ("dialog", &[]),
    ("engine", &["kernels", "model", "scheduler"]),
    ("fleet", &["control"]),
    ("kernels", &[]),
    ("model", &["kernels"]),
    ("neuron", &["control", "dialog", "engine", "kernels", "model", "text", "traces", "wire"]),
    ("scheduler", &[]),
    ("testkit", &["control", "engine"]),
    ("text", &["dialog"]),
    ("traces", &[]),
    ("wire", &["dialog"]),
    ("xtask", &[]),
];

/// Crates that may not be linked, by rule.
struct Ban {
    rule: &'static str,
    crates: &'static [&'static str],
    /// A name, or with `*` the beginning of one.
    banned: &'static [&'static str],
    mend: &'static str,
}

const BANS: [Ban; 3] = [
    Ban {
        rule: "R1",
        crates: &["control", "dialog", "fleet", "scheduler"],
        banned: &[
            "async-*",
            "candle-*",
            "chrono",
            "fastrand",
            "futures-executor",
            "getrandom",
            "rand",
            "rand_*",
            "smol",
            "time",
            "tokio",
            "uuid",
        ],
        mend: "keep policy pure: pass time as `now` and chance as a seed",
    },
    Ban {
        rule: "R2",
        crates: &["engine", "kernels", "model", "scheduler"],
        banned: &["dialog", "wire", "text"],
        mend: "tokens go in and tokens come out: leave text to neuron",
    },
    Ban {
        rule: "R3",
        crates: &["cortex"],
        banned: &["candle-*", "cudarc", "kernels", "model", "engine", "tokenizers"],
        mend: "the gateway forwards bytes: leave models to neuron",
    },
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in &tree.crates {
        edges(tree, krate, &mut findings);
        for ban in BANS.iter().filter(|ban| ban.crates.contains(&krate.name.as_str())) {
            let all: BTreeSet<_> = krate.linked.union(&krate.direct).chain(&krate.dev).collect();
            for name in all.into_iter().filter(|name| ban.banned.iter().any(|b| fits(b, name))) {
                // A tool of the tests is not a part of the product, but text in the engine's
                // tests would already be a leak of words.
                if ban.rule != "R2" && krate.dev.contains(name) && !krate.linked.contains(name) {
                    continue;
                }
                let what = format!("{} depends on {name}", krate.name);
                findings.push(at_manifest(krate, ban.rule, what, ban.mend));
            }
        }
    }
    findings
}

fn edges(tree: &Tree, krate: &Crate, findings: &mut Vec<Finding>) {
    let ours: BTreeSet<&str> = tree.crates.iter().map(|c| c.name.as_str()).collect();
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == krate.name) else {
        let what = format!("the crate {} is not in the diagram", krate.name);
        let mend = "add it to ARCHITECTURE.md and to EDGES in xtask";
        findings.push(at_manifest(krate, "crates", what, mend));
        return;
    };
    for name in krate.direct.iter().filter(|name| ours.contains(name.as_str())) {
        if !allowed.contains(&name.as_str()) {
            let what = format!("{} depends on {name}", krate.name);
            let mend =
                "the diagram of ARCHITECTURE.md has no such arrow: turn the dependency round";
            findings.push(at_manifest(krate, "crates", what, mend));
        }
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn at_manifest(krate: &Crate, rule: &'static str, what: String, mend: &'static str) -> Finding {
    Finding { rule, path: format!("{}/Cargo.toml", krate.dir), line: 0, what, mend }
}
