//! Events -> server-sent events, or one body.

use dialog::{Event, Usage};
use serde_json::value::RawValue;

use super::types::{ContentBlock, Delta, Frame, Message, MessageDelta, UsageBody, stop_reason};
use super::{error, signature};
use crate::answer::{Answer, Block, Change, End, Kind};
use crate::projector::{EventCollector, EventStream, Stamp};
use crate::{ErrorBody, sse};

/// Keeps a stream alive.
pub const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Turns the events of one answer into server-sent events.
///
/// Blocks are numbered from 0 without a gap and never overlap: SDKs index a list by the numbers.
pub struct Stream {
    id: String,
    stamp: Stamp,
    signature: String,
    answer: Answer,
    started: bool,
}

impl Stream {
    /// A stream with this stamp.
    pub fn new(stamp: Stamp) -> Self {
        let signature = signature::of_model(&stamp.model);
        Self { id: id(&stamp), stamp, signature, answer: Answer::default(), started: false }
    }

    fn start(&mut self, out: &mut Vec<u8>, prompt_tokens: u32) {
        self.started = true;
        let usage = Usage { prompt_tokens, ..Usage::default() };
        let message = Message {
            id: &self.id,
            kind: "message",
            role: "assistant",
            model: &self.stamp.model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: UsageBody::from(&usage),
        };
        push(out, &Frame::MessageStart { message });
    }

    fn change(&self, out: &mut Vec<u8>, index: usize, change: &Change<'_>) {
        let kind = &self.answer.blocks()[index].kind;
        match change {
            Change::Open => {
                let content_block = opening(kind);
                push(out, &Frame::ContentBlockStart { index, content_block });
            }
            Change::Delta(words) => {
                let delta = match kind {
                    Kind::Reasoning => Delta::Thinking { thinking: words },
                    Kind::Text => Delta::Text { text: words },
                    Kind::Call { .. } => Delta::InputJson { partial_json: words },
                };
                push(out, &Frame::ContentBlockDelta { index, delta });
            }
            Change::Close => {
                if *kind == Kind::Reasoning {
                    let delta = Delta::Signature { signature: &self.signature };
                    push(out, &Frame::ContentBlockDelta { index, delta });
                }
                push(out, &Frame::ContentBlockStop { index });
            }
        }
    }

    fn finish(&self, out: &mut Vec<u8>) {
        match self.answer.end() {
            Ok(End { reason, usage, .. }) => {
                let (reason, stop_sequence) = stop(&self.answer, reason);
                let delta = MessageDelta { stop_reason: reason, stop_sequence };
                push(out, &Frame::MessageDelta { delta, usage: UsageBody::from(&usage) });
                push(out, &Frame::MessageStop);
            }
            Err(failure) => {
                out.extend_from_slice(&error::error_event(&failure, &self.stamp.request_id));
            }
        }
    }
}

impl EventStream for Stream {
    fn event(&mut self, event: &Event) -> Vec<u8> {
        let mut out = Vec::new();
        if self.ended() {
            return out;
        }
        if let Event::Started { prompt_tokens } = event {
            self.start(&mut out, *prompt_tokens);
        }
        for (index, change) in self.answer.take(event) {
            self.change(&mut out, index, &change);
        }
        if self.ended() {
            self.finish(&mut out);
        }
        out
    }

    /// SDKs allow nothing before `message_start` but comments.
    fn keep_alive(&self) -> &'static [u8] {
        if self.started { PING } else { sse::KEEP_ALIVE }
    }

    fn ended(&self) -> bool {
        self.answer.ended()
    }
}

/// Gathers the events of one answer into one body.
pub struct Collector {
    stamp: Stamp,
    answer: Answer,
}

impl Collector {
    /// A body with this stamp.
    pub fn new(stamp: Stamp) -> Self {
        Self { stamp, answer: Answer::default() }
    }
}

impl EventCollector for Collector {
    fn event(&mut self, event: &Event) {
        self.answer.take(event);
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, ErrorBody> {
        let End { reason, usage, .. } = self.answer.end()?;
        let signature = signature::of_model(&self.stamp.model);
        let (reason, stop_sequence) = stop(&self.answer, reason);
        let message = Message {
            id: &id(&self.stamp),
            kind: "message",
            role: "assistant",
            model: &self.stamp.model,
            content: self.answer.blocks().iter().map(|block| whole(block, &signature)).collect(),
            stop_reason: Some(reason),
            stop_sequence,
            usage: UsageBody::from(&usage),
        };
        Ok(serde_json::to_vec(&message).expect("wire types always serialise"))
    }
}

/// Whether a frame, without its blank line, ends a stream. `is_closed`: the blank line is there.
pub fn is_last(frame: &[u8], is_closed: bool) -> bool {
    let (name, data) = sse::read(frame);
    match name {
        b"message_stop" => is_closed || data.ends_with(b"}"),
        b"error" => is_closed,
        _ => false,
    }
}

/// Whether a piece of a stream carries generated words.
pub fn shows_words(piece: &[u8]) -> bool {
    sse::holds(piece, b"event: content_block_delta")
}

fn id(stamp: &Stamp) -> String {
    format!("msg_{}", stamp.nonce)
}

fn stop(answer: &Answer, reason: dialog::FinishReason) -> (&'static str, Option<&str>) {
    let reason = stop_reason(reason, answer.stop_text());
    (reason, answer.stop_text().filter(|_| reason == "stop_sequence"))
}

fn opening(kind: &Kind) -> ContentBlock<'_> {
    match kind {
        Kind::Reasoning => ContentBlock::Thinking { thinking: "", signature: "" },
        Kind::Text => ContentBlock::Text { text: "".into() },
        Kind::Call { id, name } => {
            let input = RawValue::from_string("{}".to_owned()).expect("an empty object is JSON");
            ContentBlock::ToolUse { id, name, input }
        }
    }
}

fn whole<'a>(block: &'a Block, signature: &'a str) -> ContentBlock<'a> {
    match &block.kind {
        Kind::Reasoning => ContentBlock::Thinking { thinking: &block.text, signature },
        Kind::Text => ContentBlock::Text { text: block.text.as_str().into() },
        Kind::Call { id, name } => match object(&block.text) {
            Some(input) => ContentBlock::ToolUse { id, name, input },
            // Requirement 14
            None => ContentBlock::Text { text: format!("{name} {}", block.text).into() },
        },
    }
}

/// `None` for arguments that are no whole JSON object, as those of a call that was cut short.
fn object(arguments: &str) -> Option<Box<RawValue>> {
    let raw = RawValue::from_string(arguments.to_owned()).ok()?;
    raw.get().starts_with('{').then_some(raw)
}

fn push(out: &mut Vec<u8>, frame: &Frame<'_>) {
    sse::push_event(out, frame.name(), frame);
}
