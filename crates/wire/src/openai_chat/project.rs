//! Events -> chunks of a stream, or one body.

use dialog::{Event, FinishReason, Timings, Usage};

use super::ReplyOptions;
use super::types::{
    Call, CallDelta, Choice, Chunk, ChunkChoice, Completion, Delta, Function, FunctionDelta,
    Message, finish_reason,
};
use crate::answer::{Answer, Block, Kind};
use crate::projector::{EventCollector, EventStream};
use crate::usage::{TimingsBody, UsageBody};
use crate::{ErrorBody, sse};

/// Turns the events of one answer into server-sent events.
///
/// Events after the end of the answer give nothing, so that an end is written exactly once.
pub struct Stream {
    id: String,
    model: String,
    created: u64,
    include_usage: bool,
    /// A call whose arguments have not begun; it must show at least an empty object.
    bare_call: Option<u32>,
    ended: bool,
}

impl Stream {
    /// A stream whose chunks all carry this id, model and time (Unix seconds).
    pub fn new(
        id: impl Into<String>,
        model: impl Into<String>,
        created: u64,
        options: &ReplyOptions,
    ) -> Self {
        Self {
            id: id.into(),
            model: model.into(),
            created,
            include_usage: options.include_usage,
            bare_call: None,
            ended: false,
        }
    }

    /// The complete frames for one event; empty when there is nothing to say.
    pub fn event(&mut self, event: &Event) -> Vec<u8> {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        self.settle_bare_call(&mut out, event);
        match event {
            Event::Started { .. } => {
                let delta =
                    Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
                self.delta(&mut out, delta);
            }
            Event::Text(text) => {
                self.delta(&mut out, Delta { content: Some(text), ..Delta::default() });
            }
            Event::Reasoning(text) => {
                self.delta(&mut out, Delta { reasoning_content: Some(text), ..Delta::default() });
            }
            Event::ToolCall { index, id, name } => {
                self.bare_call = Some(*index);
                self.call(&mut out, *index, Some((id, name)), "");
            }
            Event::ToolArguments { index, delta } => self.call(&mut out, *index, None, delta),
            Event::StopText(_) => {}
            Event::Finished { reason, usage, timings } => {
                self.finish(&mut out, *reason, usage, timings);
            }
            Event::Failed(failure) => {
                self.ended = true;
                sse::push_data(&mut out, &ErrorBody::from_failure(failure).envelope());
            }
        }
        out
    }

    /// What to send after a silence; a comment that clients skip.
    pub fn keep_alive(&self) -> &'static [u8] {
        sse::KEEP_ALIVE
    }

    /// Whether the terminal event has been written.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn settle_bare_call(&mut self, out: &mut Vec<u8>, next: &Event) {
        let arguments = match next {
            Event::ToolArguments { index, delta } if !delta.is_empty() => Some(*index),
            Event::ToolArguments { .. } | Event::Failed(_) => return,
            _ => None,
        };
        if let Some(index) = self.bare_call.take()
            && arguments != Some(index)
        {
            self.call(out, index, None, "{}");
        }
    }

    fn call(
        &self,
        out: &mut Vec<u8>,
        index: u32,
        opening: Option<(&String, &String)>,
        arguments: &str,
    ) {
        let call = CallDelta {
            index,
            id: opening.map(|(id, _)| id.as_str()),
            kind: opening.map(|_| "function"),
            function: FunctionDelta { name: opening.map(|(_, name)| name.as_str()), arguments },
        };
        self.delta(out, Delta { tool_calls: Some([call]), ..Delta::default() });
    }

    fn delta(&self, out: &mut Vec<u8>, delta: Delta<'_>) {
        let choice = ChunkChoice { index: 0, delta, logprobs: None, finish_reason: None };
        self.chunk(out, &[choice], None, None);
    }

    fn finish(
        &mut self,
        out: &mut Vec<u8>,
        reason: FinishReason,
        usage: &Usage,
        timings: &Timings,
    ) {
        let choice = ChunkChoice {
            index: 0,
            delta: Delta::default(),
            logprobs: None,
            finish_reason: Some(finish_reason(reason)),
        };
        self.chunk(out, &[choice], None, Some(TimingsBody::new(usage, timings)));
        // Requirement 134: only when asked for.
        if self.include_usage {
            self.chunk(out, &[], Some(UsageBody::from(usage)), None);
        }
        out.extend_from_slice(sse::DONE);
        self.ended = true;
    }

    fn chunk(
        &self,
        out: &mut Vec<u8>,
        choices: &[ChunkChoice<'_>],
        usage: Option<UsageBody>,
        timings: Option<TimingsBody>,
    ) {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage: self.include_usage.then_some(usage),
            timings,
        };
        sse::push_data(out, &chunk);
    }
}

/// Gathers the events of one answer into one body.
pub struct Collector {
    id: String,
    model: String,
    created: u64,
    answer: Answer,
}

impl Collector {
    /// A body with this id, model and time (Unix seconds).
    pub fn new(id: impl Into<String>, model: impl Into<String>, created: u64) -> Self {
        Self { id: id.into(), model: model.into(), created, answer: Answer::default() }
    }

    /// Takes the next event; events after the end change nothing.
    pub fn event(&mut self, event: &Event) {
        self.answer.take(event);
    }

    /// The body of a complete answer.
    ///
    /// # Errors
    ///
    /// The failure that ended the answer; an answer that has not ended is a fault of ours.
    pub fn finish(self) -> Result<Vec<u8>, ErrorBody> {
        let end = self.answer.end()?;
        let calls: Vec<Call<'_>> = self.answer.blocks().iter().filter_map(call).collect();
        let text = self.answer.joined(&Kind::Text);
        let silent = text.is_empty() && !calls.is_empty();
        let completion = Completion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: &self.model,
            choices: [Choice {
                index: 0,
                message: Message {
                    role: "assistant",
                    content: (!silent).then_some(&text),
                    refusal: None,
                    reasoning_content: &self.answer.joined(&Kind::Reasoning),
                    tool_calls: &calls,
                },
                logprobs: None,
                finish_reason: finish_reason(end.reason),
            }],
            usage: UsageBody::from(&end.usage),
            timings: TimingsBody::new(&end.usage, &end.timings),
        };
        Ok(serde_json::to_vec(&completion).expect("wire types always serialise"))
    }
}

fn call(block: &Block) -> Option<Call<'_>> {
    let Kind::Call { id, name } = &block.kind else { return None };
    Some(Call { id, kind: "function", function: Function { name, arguments: &block.text } })
}

/// Whether a piece of a stream carries generated words; the role chunk's are empty.
pub fn shows_words(piece: &[u8]) -> bool {
    // The key's end matches `reasoning_content` too.
    sse::has_filled(piece, b"content\":") || sse::holds(piece, b"\"tool_calls\":")
}

impl EventStream for Stream {
    fn event(&mut self, event: &Event) -> Vec<u8> {
        Stream::event(self, event)
    }

    fn keep_alive(&self) -> &'static [u8] {
        Stream::keep_alive(self)
    }

    fn ended(&self) -> bool {
        Stream::ended(self)
    }
}

impl EventCollector for Collector {
    fn event(&mut self, event: &Event) {
        Collector::event(self, event);
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, ErrorBody> {
        Collector::finish(*self)
    }
}
