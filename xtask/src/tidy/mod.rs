//! `cargo tidy`: the rules of ARCHITECTURE.md as checks over the tracked files and the crates'
//! dependencies. It also runs as a test, so a broken rule turns `cargo test` red.

mod allow;
mod graph;
mod limits;
mod links;
mod names;
mod placement;
mod purity;
mod scan;
mod tree;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use tree::{File, Tree};

/// A rule that is broken somewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The rule's short name.
    pub(crate) rule: &'static str,
    /// A path from the repository's root.
    pub(crate) path: String,
    /// From 1; 0 when the whole file is meant.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) what: String,
    /// How to mend it.
    pub(crate) mend: &'static str,
}

impl Finding {
    /// At a byte of a file.
    fn at(rule: &'static str, file: &File, byte: usize, what: String, mend: &'static str) -> Self {
        let line = scan::line_of(&file.text, byte);
        Self { rule, path: file.path.clone(), line, what, mend }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, path, line, what, mend } = self;
        match line {
            0 => write!(out, "{rule} {path}: {what}; {mend}"),
            _ => write!(out, "{rule} {path}:{line}: {what}; {mend}"),
        }
    }
}

/// Checks the repository at `root`; the error lists every finding.
pub(crate) fn check(root: &Path) -> Result<String> {
    let tree = Tree::read(root)?;
    let findings = findings(&tree);
    if findings.is_empty() {
        let (files, crates) = (tree.files.len(), tree.crates.len());
        return Ok(format!("tidy: {files} files and {crates} crates keep the rules"));
    }
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    bail!("{} broken rules (see ARCHITECTURE.md):\n{}", lines.len(), lines.join("\n"))
}

fn findings(tree: &Tree) -> Vec<Finding> {
    let rules = [
        graph::check,
        placement::check,
        purity::check,
        limits::check,
        allow::check,
        names::check,
        links::check,
    ];
    let mut findings: Vec<_> = rules.iter().flat_map(|rule| rule(tree)).collect();
    findings.sort_by(|a, b| (a.rule, &a.path, a.line).cmp(&(b.rule, &b.path, b.line)));
    findings
}
