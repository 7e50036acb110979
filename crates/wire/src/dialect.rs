//! The table of dialects: everything that a node or a gateway asks about one.

use dialog::{GenerateRequest, Usage};

use crate::projector::{Projector, Stamp};
use crate::{ErrorBody, Peek, WireError};
use crate::{
    anthropic, openai_chat, openai_completions, openai_responses, peek, sse, tally, usage,
};

/// A language in which clients ask for generated text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions.
    OpenaiChat,
    /// OpenAI's older completions.
    OpenaiCompletions,
    /// OpenAI's responses.
    OpenaiResponses,
    /// Anthropic's messages.
    Anthropic,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 4] =
        [Self::OpenaiChat, Self::OpenaiCompletions, Self::OpenaiResponses, Self::Anthropic];

    /// Its word in logs, metrics and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiCompletions => "openai_completions",
            Self::OpenaiResponses => "openai_responses",
            Self::Anthropic => "anthropic",
        }
    }

    /// The path on which answers are generated, of nodes and gateway alike.
    pub fn path(self) -> &'static str {
        match self {
            Self::OpenaiChat => "/v1/chat/completions",
            Self::OpenaiCompletions => "/v1/completions",
            Self::OpenaiResponses => "/v1/responses",
            Self::Anthropic => "/v1/messages",
        }
    }

    /// The dialect in which a request hears of errors, whatever its path is: the path's own, and
    /// where paths are shared, as `/v1/models` is, Anthropic's if it has an `anthropic-version`.
    pub fn of_request(path: &str, has_anthropic_version: bool) -> Self {
        let below = |dialect: &Self| {
            let rest = path.strip_prefix(dialect.path());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let shared = if has_anthropic_version { Self::Anthropic } else { Self::OpenaiChat };
        Self::ALL.into_iter().find(below).unwrap_or(shared)
    }

    /// The fields by which a body is routed.
    ///
    /// # Errors
    ///
    /// The same as [`Dialect::parse`] gives for these fields.
    pub fn peek(self, body: &[u8]) -> Result<Peek, WireError> {
        let body = crate::fields::body(body)?;
        Ok(Peek {
            model: peek::model(&body)?,
            stream: body.flag("stream")?.unwrap_or(false),
            max_tokens: match self {
                Self::OpenaiResponses => openai_responses::max_tokens(&body)?,
                _ => peek::max_tokens(&body)?,
            },
            choices: match self {
                Self::OpenaiChat | Self::OpenaiCompletions => peek::choices(&body),
                Self::OpenaiResponses | Self::Anthropic => 1,
            },
        })
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The first field found wrong, by its path, with the value and the allowed range.
    pub fn parse(self, body: &[u8]) -> Result<(GenerateRequest, Reply), WireError> {
        Ok(match self {
            Self::OpenaiChat => {
                let (request, options) = openai_chat::parse(body)?;
                (request, Reply::OpenaiChat(options))
            }
            Self::OpenaiCompletions => {
                let (request, options) = openai_completions::parse(body)?;
                (request, Reply::OpenaiCompletions(options))
            }
            Self::OpenaiResponses => {
                let (request, options) = openai_responses::parse(body)?;
                (request, Reply::OpenaiResponses(Box::new(options)))
            }
            Self::Anthropic => {
                let (request, options) = anthropic::parse(body)?;
                (request, Reply::Anthropic(options))
            }
        })
    }

    /// The field that holds the prompt, for errors about it.
    pub fn prompt_field(self) -> &'static str {
        match self {
            Self::OpenaiChat | Self::Anthropic => "messages",
            Self::OpenaiCompletions => "prompt",
            Self::OpenaiResponses => "input",
        }
    }

    /// The field that says which form an answer must have, for errors about it.
    pub fn format_field(self) -> &'static str {
        match self {
            Self::OpenaiChat | Self::OpenaiCompletions => "response_format",
            Self::OpenaiResponses => "text.format",
            Self::Anthropic => "output_config.format",
        }
    }

    /// Status and body of a refusal.
    pub fn error(self, error: &ErrorBody, request_id: &str) -> (u16, Vec<u8>) {
        match self {
            Self::OpenaiChat | Self::OpenaiCompletions | Self::OpenaiResponses => {
                (error.status, error.json())
            }
            Self::Anthropic => anthropic::error(error, request_id),
        }
    }

    /// The header, besides `x-request-id`, in which clients look for the id of a request.
    pub fn request_id_header(self) -> Option<&'static str> {
        (self == Self::Anthropic).then_some("request-id")
    }

    /// The event that ends a stream which broke off, as whole frames (requirement 122).
    ///
    /// `seen` is the end of what the stream has said so far, the longer the better.
    pub fn error_event(self, error: &ErrorBody, request_id: &str, seen: &[u8]) -> Vec<u8> {
        match self {
            Self::OpenaiChat | Self::OpenaiCompletions => {
                let mut out = Vec::new();
                sse::push_data(&mut out, &error.envelope());
                out
            }
            Self::OpenaiResponses => openai_responses::error_event(error, seen),
            Self::Anthropic => anthropic::error_event(error, request_id),
        }
    }

    /// Whether [`Dialect::error_event`] looks at what was seen: its events have numbers that go on.
    pub fn numbers_events(self) -> bool {
        self == Self::OpenaiResponses
    }

    /// What keeps a stream alive that has nothing to say yet; clients skip it.
    pub fn keep_alive(self) -> &'static [u8] {
        match self {
            Self::OpenaiChat | Self::OpenaiCompletions | Self::OpenaiResponses => sse::KEEP_ALIVE,
            Self::Anthropic => anthropic::PING,
        }
    }

    /// Whether a frame ends a stream. `frame` has no blank line at its end, `is_closed` says that
    /// one follows; of a long frame the first 256 bytes are enough.
    pub fn is_last(self, frame: &[u8], is_closed: bool) -> bool {
        match self {
            Self::OpenaiChat | Self::OpenaiCompletions => sse::is_openai_end(frame, is_closed),
            Self::OpenaiResponses => openai_responses::is_last(frame, is_closed),
            Self::Anthropic => anthropic::is_last(frame, is_closed),
        }
    }

    /// What an answer used, by a whole body or by the JSON of one event.
    pub(crate) fn usage_in(self, json: &[u8], at: UsageAt) -> Option<Usage> {
        match self {
            Self::OpenaiChat | Self::OpenaiCompletions => {
                usage::read(tally::usage_object(json, 1)?)
            }
            Self::OpenaiResponses => openai_responses::usage_in(json, at),
            Self::Anthropic => anthropic::usage_in(json),
        }
    }

    /// Whether a piece of a stream carries generated words: announcements do not count
    /// (requirement 114).
    pub fn shows_words(self, piece: &[u8]) -> bool {
        match self {
            Self::OpenaiChat => openai_chat::shows_words(piece),
            Self::OpenaiCompletions => openai_completions::shows_words(piece),
            Self::OpenaiResponses => openai_responses::shows_words(piece),
            Self::Anthropic => anthropic::shows_words(piece),
        }
    }
}

/// Where a `usage` object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageAt {
    /// In a whole answer.
    Body,
    /// In an event of a stream.
    Event,
}

/// How a caller wants its answer told; knows its dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// See [`openai_chat`].
    OpenaiChat(openai_chat::ReplyOptions),
    /// See [`openai_completions`].
    OpenaiCompletions(openai_completions::ReplyOptions),
    /// See [`openai_responses`].
    OpenaiResponses(Box<openai_responses::ReplyOptions>),
    /// See [`anthropic`].
    Anthropic(anthropic::ReplyOptions),
}

impl Reply {
    /// Whether the answer is to be told event by event.
    pub fn is_stream(&self) -> bool {
        match self {
            Self::OpenaiChat(options) => options.stream,
            Self::OpenaiCompletions(options) => options.stream,
            Self::OpenaiResponses(options) => options.stream,
            Self::Anthropic(options) => options.stream,
        }
    }

    /// The way out of the answer.
    pub fn projector(self, stamp: Stamp) -> Projector {
        let is_stream = self.is_stream();
        match self {
            Self::OpenaiChat(options) => {
                let Stamp { nonce, model, created, .. } = stamp;
                let id = format!("chatcmpl-{nonce}");
                match is_stream {
                    true => Projector::Stream(Box::new(openai_chat::Stream::new(
                        id, model, created, &options,
                    ))),
                    false => {
                        let body = openai_chat::Collector::new(id, model, created, &options);
                        Projector::Body(Box::new(body))
                    }
                }
            }
            Self::OpenaiCompletions(options) if is_stream => {
                Projector::Stream(Box::new(openai_completions::Stream::new(stamp, &options)))
            }
            Self::OpenaiCompletions(options) => {
                Projector::Body(Box::new(openai_completions::Collector::new(stamp, &options)))
            }
            Self::OpenaiResponses(options) if is_stream => {
                Projector::Stream(Box::new(openai_responses::Stream::new(stamp, *options)))
            }
            Self::OpenaiResponses(options) => {
                Projector::Body(Box::new(openai_responses::Collector::new(stamp, *options)))
            }
            Self::Anthropic(_) if is_stream => {
                Projector::Stream(Box::new(anthropic::Stream::new(stamp)))
            }
            Self::Anthropic(_) => Projector::Body(Box::new(anthropic::Collector::new(stamp))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Dialect::{Anthropic, OpenaiChat, OpenaiCompletions, OpenaiResponses};
    use super::*;

    #[test]
    fn a_path_has_one_dialect() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::of_request(dialect.path(), true), dialect);
        }
        let table = [
            ("/v1/messages/count_tokens", Dialect::Anthropic),
            ("/v1/messages/batches", Dialect::Anthropic),
            ("/v1/messagesx", Dialect::OpenaiChat),
            ("/v1/responses/resp_1", Dialect::OpenaiResponses),
            ("/v1/models", Dialect::OpenaiChat),
            ("/tokenize", Dialect::OpenaiChat),
        ];
        for (path, dialect) in table {
            assert_eq!(Dialect::of_request(path, false), dialect, "{path}");
        }
        assert_eq!(Dialect::of_request("/v1/models", true), Dialect::Anthropic);
    }

    // Requirement 122
    #[test]
    fn every_dialects_end_is_known_and_nothing_else_is() {
        let table: [(Dialect, &str, bool, bool); 19] = [
            (OpenaiChat, "data: [DONE]", true, true),
            (OpenaiCompletions, "data:[DONE]\r", true, true),
            (OpenaiChat, "data: {\"error\":{\"message\":\"m\"}}", true, false),
            (OpenaiChat, "data: {\"choices\":[{\"delta\":{\"content\":\"[DONE]\"", false, false),
            (OpenaiChat, ": ping", false, false),
            (OpenaiChat, "data: [DON", false, false),
            (Anthropic, "event: message_stop\ndata: {\"type\":\"message_stop\"}", true, true),
            (Anthropic, "event: message_stop\ndata: {\"type\":\"mess", true, false),
            (Anthropic, "event: error\ndata: {\"type\":\"error\"}", true, false),
            (Anthropic, "event: message_delta\ndata: {}", false, false),
            (Anthropic, "event: ping\ndata: {\"type\":\"ping\"}", false, false),
            (Anthropic, "data: [DONE]", false, false),
            (OpenaiResponses, "event: response.completed\ndata: {\"type\":\"respo", true, false),
            (OpenaiResponses, "event: response.incomplete\ndata: {}", true, false),
            (OpenaiResponses, "event: response.failed\ndata: {}", true, false),
            (OpenaiResponses, "event: error\ndata: {}", true, false),
            (OpenaiResponses, "event: response.output_item.done\ndata: {}", false, false),
            (OpenaiResponses, "event: response.comp", false, false),
            (OpenaiResponses, "", false, false),
        ];
        for (dialect, frame, closed, unclosed) in table {
            assert_eq!(dialect.is_last(frame.as_bytes(), true), closed, "{frame}");
            assert_eq!(dialect.is_last(frame.as_bytes(), false), unclosed, "{frame}");
        }
    }

    // Requirement 122
    #[test]
    fn an_appended_error_is_itself_an_end() {
        let error = ErrorBody::engine_failed("gone", 5);
        for dialect in Dialect::ALL {
            let event = dialect.error_event(&error, "req_7", b"");
            let frame = event.strip_suffix(b"\n\n").expect("a closed frame");
            assert!(dialect.is_last(frame, true), "{dialect:?}");
            assert!(!dialect.shows_words(&event), "{dialect:?}");
        }
    }

    // Requirement 114
    #[test]
    fn the_first_word_is_told_from_announcements() {
        for dialect in Dialect::ALL {
            let prompt = match dialect {
                OpenaiCompletions | OpenaiResponses => "\"Hi\"",
                OpenaiChat | Anthropic => "[{\"role\": \"user\", \"content\": \"Hi\"}]",
            };
            let field = dialect.prompt_field();
            let body = format!(
                "{{\"model\": \"m\", \"max_tokens\": 5, \"stream\": true, \"{field}\": {prompt}}}"
            );
            let (_, reply) = dialect.parse(body.as_bytes()).expect("accepted");
            assert!(reply.is_stream());
            let Projector::Stream(mut stream) = reply.projector(crate::sample::stamp()) else {
                panic!("a stream")
            };
            let mut shown = |event| dialect.shows_words(&stream.event(&event));
            assert!(!shown(dialog::Event::Started { prompt_tokens: 1 }), "{dialect:?}");
            assert!(shown(crate::sample::text("word")), "{dialect:?}");
            assert!(shown(dialog::Event::Reasoning("hm".to_owned())), "{dialect:?}");
        }
    }
}
