//! What was wrong with a body, and the OpenAI error envelope.

use schemars::JsonSchema;
use serde::Serialize;

/// Why a body cannot become a request. All of them are the caller's to mend: status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The body holds nothing.
    #[error("body is empty: send a JSON object")]
    EmptyBody,
    /// The body is no JSON text.
    #[error("body is not valid JSON at line {line} column {column}: {reason}")]
    Syntax {
        /// Counts from 1.
        line: usize,
        /// Counts from 1.
        column: usize,
        /// What the reader stumbled over.
        reason: String,
    },
    /// The body is JSON, and no object.
    #[error("body must be a JSON object, got {found}")]
    NotAnObject {
        /// The kind of JSON value found.
        found: &'static str,
    },
    /// A field that must be there is not.
    #[error("missing required field: {param}")]
    Missing {
        /// The field, as a path such as `messages[2].role`.
        param: String,
    },
    /// A field has the wrong type or is out of its range.
    #[error("{param} {expected}, got {found}")]
    Invalid {
        /// The field, as a path such as `messages[2].role`.
        param: String,
        /// A sentence part that follows the field: `must be a number from 0 to 2`.
        expected: String,
        /// The value, clipped.
        found: String,
    },
    /// A field names something that an earlier request made; nothing is kept.
    #[error("{param} `{id}` not found: nothing is stored here, send the whole conversation")]
    NotStored {
        /// The field.
        param: String,
        /// What it names, clipped.
        id: String,
    },
    /// A field asks for something that would change the answer and that is not done here.
    #[error("{param} is not supported: {advice}")]
    Unsupported {
        /// The field.
        param: String,
        /// What to do instead.
        advice: String,
    },
}

impl WireError {
    pub(crate) fn not_stored(param: &str, id: &str) -> Self {
        Self::NotStored { param: param.to_owned(), id: clip(id) }
    }

    /// The field at fault, when it is one field.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Missing { param }
            | Self::Invalid { param, .. }
            | Self::NotStored { param, .. }
            | Self::Unsupported { param, .. } => Some(param),
            Self::EmptyBody | Self::Syntax { .. } | Self::NotAnObject { .. } => None,
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => Some("missing_required_parameter"),
            Self::Invalid { .. } => Some("invalid_value"),
            Self::NotStored { .. } => Some("previous_response_not_found"),
            Self::Unsupported { .. } => Some("unsupported_parameter"),
            Self::EmptyBody | Self::Syntax { .. } | Self::NotAnObject { .. } => None,
        }
    }
}

/// Status and body of a parse error in OpenAI's envelope.
pub fn openai(error: &WireError) -> (u16, Vec<u8>) {
    let body = ErrorBody::from(error);
    (body.status, body.json())
}

/// What a client should do with the same request later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will be refused again: `x-should-retry: false`.
    Never,
    /// It may pass after so many seconds: `retry-after`. Never above 60, which clients ignore.
    After(u32),
}

/// A refusal or failure in OpenAI's envelope: all four keys are always written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// HTTP status; of no meaning inside a stream that has begun.
    pub status: u16,
    /// For a human; holds no host names, paths or pointers.
    pub message: String,
    /// The envelope's `type`.
    pub kind: &'static str,
    /// The field at fault.
    pub param: Option<String>,
    /// What a program decides by.
    pub code: Option<&'static str>,
    /// See [`Retry`].
    pub retry: Retry,
}

impl From<&WireError> for ErrorBody {
    fn from(error: &WireError) -> Self {
        let mut body = Self::invalid_request(error.to_string());
        body.param = error.param().map(str::to_owned);
        body.code = error.code();
        body
    }
}

impl ErrorBody {
    /// A 400 without a field or code; set both where they are known.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::refusal(400, "invalid_request_error", None, message.into())
    }

    /// 404: no model of that id is served here.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!("the model `{}` does not exist or is not served here", clip(model));
        let mut body =
            Self::refusal(404, "invalid_request_error", Some("model_not_found"), message);
        body.param = Some("model".to_owned());
        body
    }

    /// 404: no such route.
    pub fn route_not_found(path: &str) -> Self {
        let message = format!("no such path: {}", clip(path));
        Self::refusal(404, "invalid_request_error", Some("not_found"), message)
    }

    /// 405: the route exists for other methods, which the `allow` header names.
    pub fn method_not_allowed(method: &str, allowed: &str) -> Self {
        let message = format!("method {} is not allowed here, use {allowed}", clip(method));
        Self::refusal(405, "invalid_request_error", Some("method_not_allowed"), message)
    }

    /// 400 in the words by which agents know that they must shorten the conversation.
    ///
    /// `field` holds the prompt, `answer` is what was asked for with `max_tokens`, 0 when nothing
    /// was. Where the prompt alone is too long, the message begins with the words and numbers by
    /// which agents measure how much they must leave out.
    pub fn context_length_exceeded(field: &str, context: u32, prompt: u32, answer: u32) -> Self {
        let total = u64::from(prompt) + u64::from(answer);
        let mut message = format!(
            "This model's maximum context length is {context} tokens. However, you requested \
             {total} tokens ({prompt} in the messages, {answer} in the completion). \
             Shorten the messages or lower max_tokens."
        );
        // One token at least has to be left for the answer.
        let most = context.saturating_sub(1);
        if prompt > most {
            message = format!("prompt is too long: {prompt} tokens > {most} maximum. {message}");
        }
        let code = Some("context_length_exceeded");
        let mut body = Self::refusal(400, "invalid_request_error", code, message);
        body.param = Some(field.to_owned());
        body
    }

    /// 413: the body is over the limit.
    pub fn body_too_large(limit_bytes: u64) -> Self {
        let message = format!("request body is larger than the limit of {limit_bytes} bytes");
        Self::refusal(413, "invalid_request_error", Some("request_too_large"), message)
    }

    /// 415: the body says it is something other than JSON.
    pub fn unsupported_media_type(found: &str) -> Self {
        let message = format!("content-type must be application/json, got {}", clip(found));
        Self::refusal(415, "invalid_request_error", Some("unsupported_media_type"), message)
    }

    /// 422: the model's chat template refused or failed.
    pub fn template_render_failed(message: impl Into<String>) -> Self {
        let code = Some("template_render_failed");
        Self::refusal(422, "invalid_request_error", code, message.into())
    }

    /// 429: this caller has used up its share for now.
    pub fn rate_limited(message: impl Into<String>, retry_after_secs: u32) -> Self {
        let code = Some("rate_limit_exceeded");
        Self::passing(429, "rate_limit_error", code, message.into(), retry_after_secs)
    }

    /// 503: the waiting line is full.
    pub fn overloaded(message: impl Into<String>, retry_after_secs: u32) -> Self {
        Self::passing(503, "server_error", Some("overloaded"), message.into(), retry_after_secs)
    }

    /// 503: the model is on its way.
    pub fn loading(model: &str, retry_after_secs: u32) -> Self {
        let message = format!("the model `{}` is loading, try again soon", clip(model));
        Self::passing(503, "server_error", Some("loading"), message, retry_after_secs)
    }

    /// 503: the model or the node is being taken out of service.
    pub fn draining(message: impl Into<String>, retry_after_secs: u32) -> Self {
        Self::passing(503, "server_error", Some("draining"), message.into(), retry_after_secs)
    }

    /// 503: the engine behind the model went away and is being brought back.
    pub fn engine_failed(message: impl Into<String>, retry_after_secs: u32) -> Self {
        let code = Some("engine_failed");
        Self::passing(503, "server_error", code, message.into(), retry_after_secs)
    }

    /// 500: a fault of ours; say nothing of its insides.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::refusal(500, "server_error", Some("internal_error"), message.into())
    }

    /// The failure of an answer that may have begun.
    pub fn from_failure(failure: &dialog::Failure) -> Self {
        let message = failure.message.clone();
        match failure.kind {
            dialog::FailureKind::EngineFailed => Self::engine_failed(message, 5),
            dialog::FailureKind::Draining => Self::draining(message, 5),
            dialog::FailureKind::Overloaded => Self::overloaded(message, 2),
            dialog::FailureKind::Numerical => {
                Self::refusal(500, "server_error", Some("numerical_error"), message)
            }
            dialog::FailureKind::FormatLost => {
                Self::refusal(500, "server_error", Some("format_lost"), message)
            }
        }
    }

    /// The value of a `retry-after` header, where waiting helps.
    pub fn retry_after_secs(&self) -> Option<u32> {
        match self.retry {
            Retry::Never => None,
            Retry::After(seconds) => Some(seconds),
        }
    }

    /// The value of an `x-should-retry` header.
    pub fn should_retry(&self) -> bool {
        self.retry != Retry::Never
    }

    /// The envelope as a JSON body.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.envelope()).expect("strings always serialise")
    }

    pub(crate) fn envelope(&self) -> Envelope<'_> {
        Envelope {
            error: Inner {
                message: &self.message,
                kind: self.kind,
                param: self.param.as_deref(),
                code: self.code,
            },
        }
    }

    fn refusal(
        status: u16,
        kind: &'static str,
        code: Option<&'static str>,
        message: String,
    ) -> Self {
        Self { status, message, kind, param: None, code, retry: Retry::Never }
    }

    fn passing(
        status: u16,
        kind: &'static str,
        code: Option<&'static str>,
        message: String,
        retry_after_secs: u32,
    ) -> Self {
        let retry = Retry::After(retry_after_secs.clamp(1, 60));
        Self { status, message, kind, param: None, code, retry }
    }
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Envelope<'a> {
    error: Inner<'a>,
}

#[derive(Serialize, JsonSchema)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

/// The first 100 characters, with control characters spelled out: an error never carries a line
/// break into a log or a megabyte into an answer.
pub(crate) fn clip(value: &str) -> String {
    const LIMIT: usize = 100;
    let mut clipped: String = value.chars().take(LIMIT).flat_map(spelled).collect();
    if value.chars().nth(LIMIT).is_some() {
        clipped.push_str("...");
    }
    clipped
}

fn spelled(letter: char) -> impl Iterator<Item = char> {
    let escape = letter.is_control().then(|| letter.escape_default());
    let plain = escape.is_none().then_some(letter);
    escape.into_iter().flatten().chain(plain)
}

/// The shape of a refusal.
pub(crate) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<Envelope<'static>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Requirements 4, 5 and 132
    #[test]
    fn refusals_say_whether_to_come_back() {
        let refusals = [
            (ErrorBody::model_not_found("m"), 404, None),
            (ErrorBody::context_length_exceeded("messages", 4096, 5000, 0), 400, None),
            (ErrorBody::body_too_large(32), 413, None),
            (ErrorBody::method_not_allowed("PUT", "GET"), 405, None),
            (ErrorBody::internal("x"), 500, None),
            (ErrorBody::rate_limited("x", 3), 429, Some(3)),
            (ErrorBody::overloaded("x", 0), 503, Some(1)),
            (ErrorBody::loading("m", 300), 503, Some(60)),
            (ErrorBody::draining("x", 5), 503, Some(5)),
        ];
        for (body, status, retry_after) in refusals {
            assert_eq!((body.status, body.retry_after_secs()), (status, retry_after));
            assert_eq!(body.should_retry(), retry_after.is_some());
            assert!(body.code.is_some());
        }
    }

    #[test]
    fn agents_find_the_words_they_look_for() {
        let body = ErrorBody::context_length_exceeded("messages", 4096, 4000, 200).json();
        let text = String::from_utf8(body).expect("UTF-8");
        assert!(text.contains("maximum context length is 4096 tokens"), "{text}");
        assert!(text.contains("4200 tokens (4000 in the messages, 200 in the completion)"));
        assert!(text.contains("\"code\":\"context_length_exceeded\""));
        assert!(!text.contains("prompt is too long"), "a smaller answer would do: {text}");
        // Claude Code reads both numbers out of these words, and LangChain knows by them that it
        // was the prompt.
        let long = ErrorBody::context_length_exceeded("messages", 4096, 4096, 0).message;
        assert!(long.starts_with("prompt is too long: 4096 tokens > 4095 maximum. "), "{long}");
        assert!(long.contains("maximum context length is 4096 tokens"), "{long}");
    }

    // robustness 35
    #[test]
    fn hostile_values_are_clipped_and_spelled_out() {
        let body = ErrorBody::model_not_found(&format!("a\n\u{1b}{}", "x".repeat(10_000)));
        assert!(body.message.contains("a\\n\\u{1b}xxx"), "{}", body.message);
        assert!(body.message.len() < 250 && body.message.contains("..."));
    }
}
