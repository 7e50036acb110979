//! R7, within a file: how long a function and how wide a line may be.

use super::Finding;
use super::scan;
use super::tree::{File, Tree};

/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;

/// Characters of a line.
const LINE_COLUMNS: usize = 100;

/// The languages that people write here; data and prose have no limits.
const SOURCE: [&str; 7] = [".rs", ".cu", ".cuh", ".py", ".sh", ".ts", ".mjs"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files.iter().filter(|file| is_source(file)).flat_map(in_file).collect()
}

/// Whether the limits hold for a file.
pub(super) fn is_source(file: &File) -> bool {
    SOURCE.iter().any(|ending| file.path.ends_with(ending))
}

fn in_file(file: &File) -> Vec<Finding> {
    let at = |line, what, mend| Finding { rule: "R7", path: file.path.clone(), line, what, mend };
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS {
            let what = format!("a line of {columns} columns, more than {LINE_COLUMNS}");
            findings.push(at(index + 1, what, "break it"));
        }
    }
    for function in scan::functions(&file.code) {
        if function.lines > FUNCTION_LINES {
            let (name, lines) = (&function.name, function.lines);
            let what = format!("`{name}` has {lines} lines, more than {FUNCTION_LINES}");
            findings.push(at(function.line, what, "give a part of it a name of its own"));
        }
    }
    findings
}
