//! Log-probabilities on the wire.

use dialog::TokenLogprob;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::WireError;
use crate::fields::Object;

/// Rivals of a token that a caller may ask for.
pub(crate) const MOST_RIVALS: i64 = 20;

/// JSON has no infinity; this is what the dialects' vendor writes for a token without a chance.
const NO_CHANCE: f32 = -9999.0;

/// `top_logprobs`, which means nothing unless log-probabilities are wanted at all.
pub(crate) fn top_logprobs(body: &Object<'_>, wanted: bool) -> Result<Option<u8>, WireError> {
    let top = body.integer("top_logprobs", 0..=MOST_RIVALS)?.unwrap_or(0);
    if top > 0 && !wanted {
        return Err(body.wrong("top_logprobs", "must be 0 unless log-probabilities are asked for"));
    }
    Ok(wanted.then(|| u8::try_from(top).unwrap_or(0)))
}

/// One token as chat completions and responses tell it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TokenBody<'a> {
    token: String,
    logprob: f32,
    bytes: &'a [u8],
    top_logprobs: Vec<RivalBody<'a>>,
}

#[derive(Serialize, JsonSchema)]
struct RivalBody<'a> {
    token: String,
    logprob: f32,
    bytes: &'a [u8],
}

pub(crate) fn tokens(logprobs: &[TokenLogprob]) -> Vec<TokenBody<'_>> {
    logprobs.iter().map(token).collect()
}

fn token(it: &TokenLogprob) -> TokenBody<'_> {
    let top_logprobs = it.top.iter().map(|(bytes, logprob)| RivalBody {
        token: spelling(bytes),
        logprob: finite(*logprob),
        bytes,
    });
    TokenBody {
        token: spelling(&it.bytes),
        logprob: finite(it.logprob),
        bytes: &it.bytes,
        top_logprobs: top_logprobs.collect(),
    }
}

/// Chat completions' frame around tokens.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ContentBody<'a> {
    content: Vec<TokenBody<'a>>,
    refusal: Option<()>,
}

impl<'a> ContentBody<'a> {
    /// `None` where there is nothing to tell.
    pub(crate) fn new(logprobs: &'a [TokenLogprob]) -> Option<Self> {
        Self::joined(std::iter::once(logprobs))
    }

    /// The same for several pieces, one after the other.
    pub(crate) fn joined(pieces: impl Iterator<Item = &'a [TokenLogprob]>) -> Option<Self> {
        let content: Vec<_> = pieces.flat_map(tokens).collect();
        (!content.is_empty()).then_some(Self { content, refusal: None })
    }
}

/// The older completions' parallel lists.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ListsBody {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// `null` where no rivals are asked for.
    top_logprobs: Option<Vec<Map<String, Value>>>,
    /// In characters, from the beginning of the answer.
    text_offset: Vec<usize>,
}

impl ListsBody {
    /// `offset` is where the first token begins, and becomes where the next one will.
    pub(crate) fn new(logprobs: &[TokenLogprob], offset: &mut usize) -> Option<Self> {
        if logprobs.is_empty() {
            return None;
        }
        let rivals = |it: &TokenLogprob| {
            // The token itself is always among them.
            let all = it.top.iter().map(|(bytes, logprob)| (bytes, *logprob));
            let all = all.chain([(&it.bytes, it.logprob)]);
            all.map(|(bytes, logprob)| (spelling(bytes), finite(logprob).into())).collect()
        };
        let place = |it: &TokenLogprob| {
            let begin = *offset;
            *offset += String::from_utf8_lossy(&it.bytes).chars().count();
            begin
        };
        let asks_rivals = logprobs.iter().any(|it| !it.top.is_empty());
        Some(Self {
            tokens: logprobs.iter().map(|it| spelling(&it.bytes)).collect(),
            token_logprobs: logprobs.iter().map(|it| finite(it.logprob)).collect(),
            top_logprobs: asks_rivals.then(|| logprobs.iter().map(rivals).collect()),
            text_offset: logprobs.iter().map(place).collect(),
        })
    }
}

fn finite(logprob: f32) -> f32 {
    logprob.max(NO_CHANCE)
}

/// A token's text; a part of a character is told by its bytes, so that no two tokens read alike.
fn spelling(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("bytes:{hex}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Vec<TokenLogprob> {
        let token =
            |bytes: &[u8], logprob, top| TokenLogprob { bytes: bytes.to_vec(), logprob, top };
        vec![
            token(b"a", -0.5, vec![(b"a".to_vec(), -0.5), (b"b".to_vec(), f32::NEG_INFINITY)]),
            // Half of an é: tokens may end anywhere.
            token(&[0xc3], -1.5, vec![(b"b".to_vec(), -1.0)]),
        ]
    }

    #[test]
    fn parts_of_characters_are_told_by_their_bytes() {
        let body = serde_json::to_value(ContentBody::new(&answer())).unwrap();
        let rival = |token: &str, logprob: f32, bytes: &[u8]| -> Value {
            json!({"token": token, "logprob": logprob, "bytes": bytes})
        };
        let want = json!({"content": [
            {"token": "a", "logprob": -0.5, "bytes": [97],
             "top_logprobs": [rival("a", -0.5, b"a"), rival("b", -9999.0, b"b")]},
            {"token": "bytes:\\xc3", "logprob": -1.5, "bytes": [195],
             "top_logprobs": [rival("b", -1.0, b"b")]},
        ], "refusal": null});
        assert_eq!(body, want);
        assert!(ContentBody::new(&[]).is_none());
    }

    #[test]
    fn lists_go_on_where_the_last_ended() {
        let mut offset = 3;
        let body = serde_json::to_value(ListsBody::new(&answer(), &mut offset)).unwrap();
        let want = json!({
            "tokens": ["a", "bytes:\\xc3"], "token_logprobs": [-0.5, -1.5], "text_offset": [3, 4],
            "top_logprobs": [{"a": -0.5, "b": -9999.0}, {"b": -1.0, "bytes:\\xc3": -1.5}],
        });
        assert_eq!((body, offset), (want, 5));
        let bare = [TokenLogprob { top: Vec::new(), ..answer().remove(0) }];
        let body = serde_json::to_value(ListsBody::new(&bare, &mut offset)).unwrap();
        assert_eq!(body["top_logprobs"], Value::Null);
    }
}
