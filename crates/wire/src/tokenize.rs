//! `POST /tokenize` and `POST /detokenize`, in the words of vLLM and of llama-server.
//!
//! A text is tokenised as `/v1/completions` would do it and messages as `/v1/chat/completions`
//! would, template and tools included.

use dialog::{GenerateRequest, Prompt};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use crate::fields::Object;
use crate::{WireError, fields, openai_chat, peek};

/// What is to be tokenised.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenize {
    /// A request whose prompt it is.
    pub request: GenerateRequest,
    /// Whether the caller wants to see each token's text.
    pub pieces: bool,
}

/// What is to be made text again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detokenize {
    /// The id under which the model is served.
    pub model: String,
    /// Token ids.
    pub tokens: Vec<u32>,
}

/// Reads the body of `POST /tokenize`: `prompt` or `content` is a text, `messages` a conversation.
///
/// # Errors
///
/// The first field found wrong, by its path.
pub fn parse_tokenize(body: &[u8]) -> Result<Tokenize, WireError> {
    let fields = fields::body(body)?;
    let model = peek::model(&fields)?;
    let vllm = fields.flag("return_token_strs")?;
    let llama = fields.flag("with_pieces")?;
    let pieces = vllm.or(llama).unwrap_or(false);
    if fields.raw("messages").is_some() {
        let (request, _) = openai_chat::parse(body)?;
        return Ok(Tokenize { request, pieces });
    }
    let text = match fields.text("prompt")? {
        None => fields.text("content")?.ok_or_else(|| fields.missing("prompt"))?,
        Some(text) => text,
    };
    Ok(Tokenize { request: GenerateRequest::new(model, Prompt::Text(text)), pieces })
}

/// Reads the body of `POST /detokenize`.
///
/// # Errors
///
/// The first field found wrong, by its path.
pub fn parse_detokenize(body: &[u8]) -> Result<Detokenize, WireError> {
    let fields = fields::body(body)?;
    let model = peek::model(&fields)?;
    Ok(Detokenize { model, tokens: tokens(&fields)? })
}

fn tokens(body: &Object<'_>) -> Result<Vec<u32>, WireError> {
    let raws = body.array("tokens")?.ok_or_else(|| body.missing("tokens"))?;
    let read = |(index, raw): (usize, &&serde_json::value::RawValue)| {
        raw.get().parse().map_err(|_| {
            let expected = format!("must be a token id from 0 to {}", u32::MAX);
            fields::invalid(format!("tokens[{index}]"), expected, raw)
        })
    };
    raws.iter().enumerate().map(read).collect()
}

/// The body that answers `POST /tokenize`; `pieces` has one text a token, if it was asked for.
pub fn tokens_body(
    tokens: &[u32],
    max_model_len: Option<u32>,
    pieces: Option<&[String]>,
) -> Vec<u8> {
    let body = TokensBody { count: tokens.len(), max_model_len, tokens, token_strs: pieces };
    serde_json::to_vec(&body).expect("wire types always serialise")
}

/// The body that answers `POST /detokenize`, under vLLM's name and llama-server's.
pub fn text_body(text: &str) -> Vec<u8> {
    let body = TextBody { prompt: text, content: text };
    serde_json::to_vec(&body).expect("wire types always serialise")
}

#[derive(Serialize, JsonSchema)]
struct TokensBody<'a> {
    count: usize,
    max_model_len: Option<u32>,
    tokens: &'a [u32],
    token_strs: Option<&'a [String]>,
}

#[derive(Serialize, JsonSchema)]
struct TextBody<'a> {
    prompt: &'a str,
    content: &'a str,
}

pub(crate) fn tokens_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<TokensBody<'_>>()
}

pub(crate) fn text_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<TextBody<'_>>()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn both_servers_words_are_understood() {
        let read = |body: Value| parse_tokenize(body.to_string().as_bytes()).expect("accepted");
        let text = Prompt::Text("a\u{0}b".to_owned());
        let vllm = read(json!({"model": "m", "prompt": "a\u{0}b", "return_token_strs": true}));
        assert_eq!((&vllm.request.prompt, vllm.pieces), (&text, true));
        let llama = read(json!({"model": "m", "content": "a\u{0}b", "with_pieces": false}));
        assert_eq!((&llama.request.prompt, llama.pieces), (&text, false));
        let chat = read(json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}));
        assert!(matches!(chat.request.prompt, Prompt::Chat(turns) if turns.len() == 1));
        let body = br#"{"model": "m", "tokens": [0, 4294967295]}"#;
        let detokenize = parse_detokenize(body).expect("accepted");
        assert_eq!((&*detokenize.model, &*detokenize.tokens), ("m", &[0, u32::MAX][..]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let tokenize = |body: Value| parse_tokenize(body.to_string().as_bytes()).map(|_| ());
        let detokenize = |body: Value| parse_detokenize(body.to_string().as_bytes()).map(|_| ());
        let refusals = [
            (tokenize(json!({"prompt": "x"})), "model"),
            (tokenize(json!({"model": "m"})), "prompt"),
            (tokenize(json!({"model": "m", "prompt": 5})), "prompt"),
            (tokenize(json!({"model": "m", "prompt": "", "with_pieces": 1})), "with_pieces"),
            (tokenize(json!({"model": "m", "messages": [{}]})), "messages[0].role"),
            (detokenize(json!({"model": "m"})), "tokens"),
            (detokenize(json!({"model": "m", "tokens": "1"})), "tokens"),
            (detokenize(json!({"model": "m", "tokens": [1, -1]})), "tokens[1]"),
            (detokenize(json!({"model": "m", "tokens": [4294967296_u64]})), "tokens[0]"),
            (detokenize(json!({"model": "m", "tokens": [1.0]})), "tokens[0]"),
        ];
        for (refusal, param) in refusals {
            assert_eq!(refusal.expect_err(param).param(), Some(param));
        }
    }

    #[test]
    fn answers_have_both_servers_fields() {
        let body = tokens_body(&[5, 6], Some(10), Some(&["a".to_owned(), "b".to_owned()]));
        let wanted = json!({"count": 2, "max_model_len": 10, "tokens": [5, 6],
            "token_strs": ["a", "b"]});
        assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON"), wanted);
        let body: Value = serde_json::from_slice(&text_body("é\n")).expect("JSON");
        assert_eq!(body, json!({"prompt": "é\n", "content": "é\n"}));
    }
}
