//! The event that takes the place of a missing end.

use serde::Serialize;

use crate::error::Envelope;
use crate::{ErrorBody, sse};

/// The dialect's own error event, which SDKs hand on like any other event; the nested `error` makes
/// those raise that know the envelope of the other OpenAI dialects.
#[derive(Serialize)]
struct ErrorEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: Option<&'static str>,
    message: &'a str,
    param: Option<&'a str>,
    sequence_number: u64,
    #[serde(flatten)]
    envelope: Envelope<'a>,
}

/// An error event behind `seen`, the last bytes of a stream.
pub(crate) fn error_event(error: &ErrorBody, seen: &[u8]) -> Vec<u8> {
    let event = ErrorEvent {
        kind: "error",
        code: error.code,
        message: &error.message,
        param: error.param.as_deref(),
        sequence_number: next_number(seen),
        envelope: error.envelope(),
    };
    let mut out = Vec::new();
    sse::push_event(&mut out, "error", &event);
    out
}

/// One more than the last number in sight. Where none is, the numbers went on out of sight, and
/// only a great one is sure to rise above them.
fn next_number(seen: &[u8]) -> u64 {
    const KEY: &[u8] = b"\"sequence_number\":";
    if seen.is_empty() {
        return 0;
    }
    let at = seen.windows(KEY.len()).rposition(|window| window == KEY);
    let digits = at.map(|at| seen[at + KEY.len()..].trim_ascii_start()).unwrap_or_default();
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let last = std::str::from_utf8(&digits[..length]).ok().and_then(|text| text.parse().ok());
    last.map_or(i32::MAX as u64, |last: u64| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::next_number;

    // Requirement 10
    #[test]
    fn an_appended_error_goes_on_with_the_numbers() {
        let table: [(&[u8], u64); 5] = [
            (b"", 0),
            (b"data: {\"sequence_number\":4}\n\n", 5),
            (b"data: {\"sequence_number\": 4}\n\ndata: {\"delta\":\"\\\"sequence_number\\\":9", 5),
            (b"data: {\"sequence_number\":", i32::MAX as u64),
            (b"data: {\"delta\":\"a", i32::MAX as u64),
        ];
        for (seen, number) in table {
            assert_eq!(next_number(seen), number, "{}", String::from_utf8_lossy(seen));
        }
    }
}
