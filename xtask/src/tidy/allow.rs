//! R7, of whole files: a length that needs a reason, kept in `tidy.allow`.
//!
//! Each line is `path lines reason…`. The count is a ceiling: a file that grows past it, and an
//! entry that is higher than needed, are both findings. So the list only shrinks.

use super::Finding;
use super::limits::is_source;
use super::tree::{File, Tree};

/// Lines of a file.
const FILE_LINES: usize = 600;

const LIST: &str = "tidy.allow";

struct Entry<'a> {
    line: usize,
    path: &'a str,
    ceiling: usize,
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let text = tree.file(LIST).map_or("", |list| list.text.as_str());
    let entries = parse(text, &mut findings);
    for entry in &entries {
        findings.extend(unneeded(tree, entry));
    }
    for file in tree.files.iter().filter(|file| is_source(file)) {
        let lines = file.text.lines().count();
        let entry = entries.iter().find(|entry| entry.path == file.path);
        let ceiling = entry.map_or(FILE_LINES, |entry| entry.ceiling);
        if lines > ceiling {
            let what = format!("{lines} lines, more than {ceiling}");
            findings.push(too_long(file, what));
        }
    }
    findings
}

fn parse<'a>(text: &'a str, findings: &mut Vec<Finding>) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.splitn(3, char::is_whitespace);
        let path = fields.next().unwrap_or_default();
        let ceiling = fields.next().and_then(|count| count.parse().ok());
        let reason = fields.next().map_or("", str::trim);
        match ceiling {
            Some(ceiling) if reason.split_whitespace().count() >= 3 => {
                entries.push(Entry { line: index + 1, path, ceiling });
            }
            _ => findings.push(in_list(
                index + 1,
                format!("`{line}` is no entry"),
                "write the path, the file's lines and the reason in a few words",
            )),
        }
    }
    entries
}

fn unneeded(tree: &Tree, entry: &Entry<'_>) -> Option<Finding> {
    let Some(file) = tree.file(entry.path) else {
        let what = format!("{} does not exist", entry.path);
        return Some(in_list(entry.line, what, "remove the entry"));
    };
    let lines = file.text.lines().count();
    if lines <= FILE_LINES {
        let what = format!("{} has {lines} lines and needs no entry", entry.path);
        return Some(in_list(entry.line, what, "remove the entry"));
    }
    (lines < entry.ceiling).then(|| {
        let what = format!("{} has only {lines} lines, not {}", entry.path, entry.ceiling);
        in_list(entry.line, what, "lower the entry: the list only shrinks")
    })
}

fn too_long(file: &File, what: String) -> Finding {
    let mend = "split it by subject, or give tidy.allow an entry with its reason";
    Finding { rule: "R7", path: file.path.clone(), line: 0, what, mend }
}

fn in_list(line: usize, what: String, mend: &'static str) -> Finding {
    Finding { rule: "R7", path: LIST.to_owned(), line, what, mend }
}
