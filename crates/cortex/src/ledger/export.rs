//! The ledger as rows, for spreadsheets and programs.

use std::fmt::Write;

use serde::Serialize;

/// Which entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// Unix milliseconds, inclusive.
    pub since_ms: u64,
    /// Unix milliseconds, exclusive.
    pub until_ms: u64,
    /// One key's entries; of all keys when empty.
    pub key: String,
    /// How many at most.
    pub limit: u32,
}

const MOST_ROWS: u32 = 100_000;

impl Query {
    /// Reads `since_ms`, `until_ms`, `key` and `limit` of a URL's query.
    ///
    /// # Errors
    /// The parameter and what is wrong with it.
    pub(crate) fn read(query: &str) -> Result<Query, String> {
        let mut read =
            Query { since_ms: 0, until_ms: i64::MAX as u64, key: String::new(), limit: 10_000 };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number =
                || value.parse().map_err(|_| format!("{name} must be a number, got {value}"));
            match name {
                "since_ms" => read.since_ms = number()?,
                "until_ms" => read.until_ms = number()?,
                "limit" => {
                    let limit = u32::try_from(number()?).unwrap_or(u32::MAX);
                    read.limit = limit.clamp(1, MOST_ROWS);
                }
                "key" => value.clone_into(&mut read.key),
                "format" => {}
                other => {
                    return Err(format!(
                        "unknown parameter {other}; known: since_ms, until_ms, key, limit, format"
                    ));
                }
            }
        }
        Ok(read)
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub ended_ms: u64,
    pub request_id: String,
    pub key: String,
    pub model: String,
    pub node: String,
    pub route: String,
    pub status: u64,
    pub end: String,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    pub reasoning_tokens: u64,
    pub is_estimate: bool,
    pub took_ms: u64,
}

const HEAD: &str = "ended_ms,request_id,key,model,node,route,status,end,prompt_tokens,\
                    cached_tokens,completion_tokens,reasoning_tokens,is_estimate,took_ms\n";

/// The rows as RFC 4180 has them.
pub(crate) fn csv(rows: &[Row]) -> String {
    let mut out = HEAD.to_owned();
    for row in rows {
        let [id, key, model, node, route, end] =
            [&row.request_id, &row.key, &row.model, &row.node, &row.route, &row.end]
                .map(|t| cell(t));
        let Row { ended_ms, status, prompt_tokens, cached_tokens, .. } = row;
        let Row { completion_tokens, reasoning_tokens, is_estimate, took_ms, .. } = row;
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "{ended_ms},{id},{key},{model},{node},{route},{status},{end},{prompt_tokens},\
             {cached_tokens},{completion_tokens},{reasoning_tokens},{is_estimate},{took_ms}"
        );
    }
    out
}

/// Quoted where it must be. A text that a spreadsheet would take for a formula is made a text.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        assert_eq!(cell("qwen/3"), "qwen/3");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("a\"b"), "\"a\"\"b\"");
        assert_eq!(cell("=cmd()"), "'=cmd()");
    }

    #[test]
    fn a_query_is_read_or_refused_by_name() {
        let read = Query::read("since_ms=5&key=ann&limit=7&format=csv").expect("good");
        assert_eq!((read.since_ms, &*read.key, read.limit), (5, "ann", 7));
        assert!(Query::read("sinc=1").expect_err("unknown").contains("sinc"));
        assert!(Query::read("limit=x").expect_err("no number").contains("limit"));
    }
}
