//! `POST /v1/embeddings`.
//!
//! Stated choices where the field leaves room: an empty input is refused; `dimensions` keeps the
//! first so many numbers, which are brought to length 1 again where the whole was; unknown fields
//! are ignored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dialog::{Prompt, Sharing};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::fields::{self, Object};
use crate::sharing;
use crate::wishes::refuse;
use crate::{WireError, peek};

/// Inputs that one request may have.
pub const MOST_INPUTS: usize = 2048;

/// Of which inputs embeddings are wanted, and how they are to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingRequest {
    /// The id under which the model is served.
    pub model: String,
    /// At least one; texts or token ids.
    pub inputs: Vec<Prompt>,
    /// How numbers are written.
    pub encoding: Encoding,
    /// The first so many numbers alone.
    pub dimensions: Option<u32>,
    /// See [`Sharing`].
    pub sharing: Sharing,
}

/// How the numbers of an embedding are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As a JSON array.
    #[default]
    Float,
    /// As a string: little-endian `f32` one after the other, in base64.
    Base64,
}

/// Fields that other servers know and that would change an embedding.
const NOT_DONE: &[(&str, &[&str])] = &[
    ("messages", &[]),
    ("truncate_prompt_tokens", &[]),
    ("add_special_tokens", &["true"]),
    ("normalize", &["true"]),
    ("embd_normalize", &["2"]),
    ("embedding_types", &["[\"float\"]"]),
];

/// Reads a request for embeddings.
///
/// # Errors
///
/// The first field found wrong, by its path; a field that would change an embedding and is not
/// honoured is refused by name.
pub fn parse(body: &[u8]) -> Result<EmbeddingRequest, WireError> {
    let body = fields::body(body)?;
    let model = peek::model(&body)?;
    refuse(&body, NOT_DONE)?;
    let encoding = match body.text("encoding_format")?.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(_) => return Err(body.wrong("encoding_format", "must be float or base64")),
    };
    let dimensions = body.integer("dimensions", 1..=i64::from(i32::MAX))?;
    Ok(EmbeddingRequest {
        model,
        inputs: inputs(&body)?,
        encoding,
        dimensions: dimensions.and_then(|count| u32::try_from(count).ok()),
        sharing: sharing::openai(&body)?,
    })
}

const FORMS: &str = "must be a string, an array of strings, an array of token ids, or an array of \
                     arrays of token ids";

fn inputs(body: &Object<'_>) -> Result<Vec<Prompt>, WireError> {
    let raw = body.raw("input").ok_or_else(|| body.missing("input"))?;
    match raw.get().as_bytes().first() {
        Some(b'"') => return Ok(vec![text(raw, || "input".to_owned())?]),
        Some(b'[') => {}
        _ => return Err(body.wrong("input", FORMS)),
    }
    let items = body.array("input")?.unwrap_or_default();
    if items.is_empty() || items.len() > MOST_INPUTS && !is_number(items[0]) {
        let expected = format!("must hold 1 to {MOST_INPUTS} inputs");
        return Err(body.wrong("input", expected));
    }
    if is_number(items[0]) {
        return Ok(vec![tokens(&items, raw, "input")?]);
    }
    let read = |(index, raw): (usize, &&RawValue)| {
        let path = format!("input[{index}]");
        match raw.get().as_bytes().first() {
            Some(b'"') => text(raw, || path.clone()),
            Some(b'[') => {
                let broken = |_| fields::invalid(path.clone(), FORMS.to_owned(), raw);
                let ids: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(broken)?;
                tokens(&ids, raw, &path)
            }
            _ => Err(fields::invalid(path, FORMS.to_owned(), raw)),
        }
    };
    items.iter().enumerate().map(read).collect()
}

fn is_number(raw: &RawValue) -> bool {
    raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn text(raw: &RawValue, path: impl Fn() -> String) -> Result<Prompt, WireError> {
    let text = fields::text(raw, &path)?;
    if text.is_empty() {
        return Err(fields::invalid(path(), "must not be empty".to_owned(), raw));
    }
    Ok(Prompt::Text(text))
}

fn tokens(items: &[&RawValue], whole: &RawValue, path: &str) -> Result<Prompt, WireError> {
    let ids: Option<Vec<u32>> = items.iter().map(|raw| raw.get().parse().ok()).collect();
    match ids {
        Some(ids) if !ids.is_empty() => Ok(Prompt::Tokens(ids)),
        _ => {
            let expected = "must hold at least one token id, and nothing else".to_owned();
            Err(fields::invalid(path.to_owned(), expected, whole))
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize, JsonSchema)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Numbers<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Numbers<'a> {
    Float(&'a [f32]),
    Base64(String),
}

#[derive(Serialize, JsonSchema)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// The body that tells embeddings, in the order of the inputs.
pub fn body(
    model: &str,
    embeddings: &[Vec<f32>],
    encoding: Encoding,
    prompt_tokens: u64,
) -> Vec<u8> {
    let items = embeddings.iter().enumerate().map(|(index, values)| Item {
        object: "embedding",
        index,
        embedding: match encoding {
            Encoding::Float => Numbers::Float(values),
            Encoding::Base64 => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Numbers::Base64(STANDARD.encode(bytes))
            }
        },
    });
    let list = List {
        object: "list",
        data: items.collect(),
        model,
        usage: Usage { prompt_tokens, total_tokens: prompt_tokens },
    };
    serde_json::to_vec(&list).expect("wire types always serialise")
}

/// The shape of a whole answer.
pub(crate) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<List<'static>>()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(input: &Value) -> Result<Vec<Prompt>, WireError> {
        let body = json!({"model": "m", "input": input});
        parse(body.to_string().as_bytes()).map(|request| request.inputs)
    }

    #[test]
    fn every_form_of_input_is_read() {
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(read(&json!("a")), Ok(vec![text("a")]));
        assert_eq!(read(&json!(["a", "b"])), Ok(vec![text("a"), text("b")]));
        assert_eq!(read(&json!([1, 2])), Ok(vec![Prompt::Tokens(vec![1, 2])]));
        let both = vec![Prompt::Tokens(vec![1]), text("b")];
        assert_eq!(read(&json!([[1], "b"])), Ok(both));
        let long: Vec<u32> = (0..3000).collect();
        assert_eq!(read(&json!(long)), Ok(vec![Prompt::Tokens(long)]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, param) in [
            (json!({}), "input"),
            (json!({"input": ""}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": 5}), "input"),
            (json!({"input": ["a", ""]}), "input[1]"),
            (json!({"input": ["a", 5]}), "input[1]"),
            (json!({"input": [[1], []]}), "input[1]"),
            (json!({"input": [1, -1]}), "input"),
            (json!({"input": [1, "a"]}), "input"),
            (json!({"input": vec!["a"; 2049]}), "input"),
            (json!({"input": "a", "encoding_format": "hex"}), "encoding_format"),
            (json!({"input": "a", "dimensions": 0}), "dimensions"),
            (json!({"input": "a", "truncate_prompt_tokens": 5}), "truncate_prompt_tokens"),
        ] {
            let mut body = json!({"model": "m"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let error = parse(body.to_string().as_bytes()).expect_err(param);
            assert_eq!(error.param(), Some(param), "{body}");
        }
    }

    #[test]
    fn numbers_are_told_in_both_encodings() {
        let tell = |encoding| {
            let body = body("m", &[vec![0.5, -2.0], vec![1.0, 0.25]], encoding, 7);
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        let floats = tell(Encoding::Float);
        let expected = json!({
            "object": "list",
            "data": [
                {"object": "embedding", "index": 0, "embedding": [0.5, -2.0]},
                {"object": "embedding", "index": 1, "embedding": [1.0, 0.25]},
            ],
            "model": "m",
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        });
        assert_eq!(floats, expected);
        assert_eq!(tell(Encoding::Base64)["data"][0]["embedding"], "AAAAPwAAAMA=");
    }
}
