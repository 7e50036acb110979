//! What a request may use, before a tokenizer has seen it.

use control::Limit;
use memchr::memmem;
use wire::Peek;

/// What nodes generate at most when neither the request nor the model says.
const DEFAULT_OUTPUT: u32 = 8192;
/// Requirement 113: an image counts as an image, however long its text is.
const IMAGE_TOKENS: u64 = 4096;
/// Bytes of a token in text as it usually is.
const BYTES_A_TOKEN: u64 = 4;

/// Tokens of prompt and answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    /// No request like this uses more: a token is made of one byte at least.
    pub bound: u64,
    /// What one like it usually uses.
    pub likely: u64,
    /// The prompt's part of that.
    pub prompt: u32,
}

impl Estimate {
    pub(super) fn new(body: &[u8], peek: &Peek, limit: Option<Limit>) -> Estimate {
        let context = limit.map_or(u32::MAX, |limit| limit.context);
        let most = limit.and_then(|limit| limit.output).unwrap_or(DEFAULT_OUTPUT);
        let answer = peek.max_tokens.unwrap_or(most).min(context);
        let answers = u64::from(answer) * u64::from(peek.choices);
        let (text, images) = parts(body);
        let prompt = |tokens: u64| (tokens + images).min(context.into());
        let likely = prompt(text / BYTES_A_TOKEN);
        Estimate {
            bound: prompt(text) + answers,
            likely: likely + answers,
            prompt: u32::try_from(likely).unwrap_or(u32::MAX),
        }
    }
}

/// Bytes that may be text, and the tokens of the images between them.
fn parts(body: &[u8]) -> (u64, u64) {
    const MARK: &[u8] = b";base64,";
    let (mut text, mut images) = (body.len() as u64, 0);
    for at in memmem::find_iter(body, MARK) {
        let data = &body[at + MARK.len()..];
        let length = data.iter().position(|byte| *byte == b'"').unwrap_or(data.len());
        text = text.saturating_sub(length as u64);
        images += IMAGE_TOKENS;
    }
    (text, images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek(max_tokens: Option<u32>, choices: u32) -> Peek {
        Peek { model: "m".to_owned(), stream: false, max_tokens, choices }
    }

    #[test]
    fn a_bound_is_bytes_and_answers() {
        let limit = Limit { context: 1000, output: Some(200) };
        let body = [b'x'; 400];
        let estimate = |peek: &Peek, limit| {
            let Estimate { bound, likely, prompt } = Estimate::new(&body, peek, limit);
            (bound, likely, prompt)
        };
        assert_eq!(estimate(&peek(Some(50), 1), Some(limit)), (450, 150, 100));
        assert_eq!(estimate(&peek(Some(50), 3), Some(limit)), (550, 250, 100));
        assert_eq!(estimate(&peek(None, 1), Some(limit)), (600, 300, 100));
        assert_eq!(estimate(&peek(None, 1), None), (400 + 8192, 100 + 8192, 100));
        assert_eq!(estimate(&peek(Some(9000), 1), Some(limit)), (1400, 1100, 100));
    }

    // Requirement 113
    #[test]
    fn an_image_is_no_text() {
        let data = "A".repeat(1 << 20);
        let body = format!(r#"{{"a":"data:image/png;base64,{data}","b":"hello"}}"#);
        let estimate = Estimate::new(body.as_bytes(), &peek(Some(1), 1), None);
        assert!((4096..4200).contains(&estimate.bound), "{estimate:?}");
    }
}
