//! Words: names that say nothing, and paths of somebody's machine.

use super::Finding;
use super::limits::is_source;
use super::scan;
use super::tree::{File, Tree};

/// Names that fit every file, and so none.
const EMPTY: [&str; 9] =
    ["common", "helper", "helpers", "manager", "misc", "types", "util", "utils", "stuff"];

/// Top directories of a machine or a container in which somebody happened to work.
const MACHINE: [&str; 3] = ["work", "root", "workspace"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if is_source(file) {
            file_name(file, &mut findings);
            type_names(file, &mut findings);
        }
        machine_paths(file, &mut findings);
    }
    findings
}

fn file_name(file: &File, findings: &mut Vec<Finding>) {
    let in_dialect = file.path.starts_with("crates/wire/src/") && file.stem() == "types";
    if in_dialect || file.path.ends_with("/common.cuh") {
        return;
    }
    let mut parts = file.path.split('/').flat_map(|part| part.split(['_', '.', '-']));
    if let Some(word) = parts.find(|part| EMPTY.contains(part)) {
        findings.push(Finding {
            rule: "names",
            path: file.path.clone(),
            line: 0,
            what: format!("`{word}` says nothing about what is inside"),
            mend: "name the file after its one subject",
        });
    }
}

fn type_names(file: &File, findings: &mut Vec<Finding>) {
    let mut previous = "";
    for (at, word) in scan::words(&file.code) {
        let is_name = ["struct", "enum", "trait", "type", "union"].contains(&previous);
        previous = word;
        if is_name && says_nothing(word) {
            findings.push(Finding {
                rule: "names",
                path: file.path.clone(),
                line: scan::line_of(&file.code, at),
                what: format!("the type `{word}` has a name that ARCHITECTURE.md rules out"),
                mend: "name it after what it is; a rank is a rank, also one of many",
            });
        }
    }
}

fn says_nothing(name: &str) -> bool {
    let tensor_parallel =
        name.strip_prefix("Tp").is_some_and(|rest| !rest.starts_with(char::is_lowercase));
    let starts: Vec<_> = name.match_indices(char::is_uppercase).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([name.len()]);
    let mut words = starts.iter().zip(ends).map(|(start, end)| name[*start..end].to_lowercase());
    tensor_parallel || words.any(|word| EMPTY.contains(&word.as_str()))
}

fn machine_paths(file: &File, findings: &mut Vec<Finding>) {
    for top in MACHINE {
        let path = format!("/{top}/");
        for (at, _) in file.text.match_indices(&path) {
            // `a/work/b` and `https://host/work/` are not paths from the root of a machine.
            let before = file.text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "._-~*{})$".contains(c)) {
                continue;
            }
            let what = format!("`{path}…` is a path of one machine");
            let mend = "say it relative to the repository, or make it an argument";
            findings.push(Finding::at("names", file, at, what, mend));
        }
    }
}
