//! Says where a configuration is wrong, and which key was meant.

use figment::error::Kind;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Error;

/// Keys further apart than this are not taken for one another.
const NEAR: f64 = 0.6;

/// Refuses a text that is not TOML.
pub(crate) fn check_syntax(text: &str, place: &str) -> Result<(), Error> {
    DeTable::parse(text).map(|_| ()).map_err(|error| {
        let at = error.span().map(|span| line_column(text, span.start));
        Error::Config { place: placed(place, at), problem: error.message().to_owned() }
    })
}

/// Turns figment's first complaint into one with a line, a column and a suggestion.
pub(crate) fn complain(error: &figment::Error, text: &str, place: &str) -> Error {
    let from_file = error.metadata.as_ref().is_none_or(|m| !m.name.contains("environment"));
    let mut path = error.path.clone();
    let problem = match &error.kind {
        Kind::UnknownField(key, known) => {
            if path.last() != Some(key) {
                path.push(key.clone());
            }
            unknown_key(key, known)
        }
        kind => match path.is_empty() {
            true => kind.to_string(),
            false => format!("{}: {kind}", path.join(".")),
        },
    };
    if !from_file {
        let variable = format!("CORTEX_{}", path.join("__").to_ascii_uppercase());
        return Error::Config { place: variable, problem };
    }
    let at = offset_of(text, &path).map(|offset| line_column(text, offset));
    Error::Config { place: placed(place, at), problem }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let scored = known.iter().map(|name| (strsim::jaro_winkler(key, name), name));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, name)) if score > NEAR => {
            format!("unknown key `{key}`; did you mean `{name}`?")
        }
        _ => format!("unknown key `{key}`; known here: {}", known.join(", ")),
    }
}

/// Where the key at `path` begins; the deepest part of the path that the file has.
fn offset_of(text: &str, path: &[String]) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut found = None;
    let mut here: Option<&DeValue<'_>> = None;
    for part in path {
        let table = match here {
            None => Some(root.get_ref()),
            Some(value) => value.as_table(),
        };
        let next: Option<(usize, &Spanned<DeValue<'_>>)> = match (table, here) {
            (Some(table), _) => table
                .iter()
                .find(|(key, _)| key.get_ref().as_ref() == part.as_str())
                .map(|(key, value)| (key.span().start, value)),
            (None, Some(value)) => part
                .parse()
                .ok()
                .and_then(|index: usize| value.as_array()?.get(index))
                .map(|value| (value.span().start, value)),
            (None, None) => None,
        };
        let Some((start, value)) = next else { break };
        found = Some(start);
        here = Some(value.get_ref());
    }
    found
}

/// Both count from 1; columns count characters.
fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

fn placed(place: &str, at: Option<(usize, usize)>) -> String {
    match at {
        Some((line, column)) => format!("{place}:{line}:{column}"),
        None => place.to_owned(),
    }
}
