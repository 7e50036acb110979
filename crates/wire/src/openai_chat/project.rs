//! Events -> chunks of a stream, or one body.

use dialog::{Event, FinishReason, Timings, Usage};

use super::ReplyOptions;
use super::types::{
    Answer, Call, CallDelta, Choice, Chunk, ChunkChoice, Completion, Delta, Function,
    FunctionDelta, TimingsBody, UsageBody, finish_reason,
};
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
    text: String,
    reasoning: String,
    calls: Vec<(u32, Call)>,
    end: Option<Result<(FinishReason, Usage, Timings), ErrorBody>>,
}

impl Collector {
    /// A body with this id, model and time (Unix seconds).
    pub fn new(id: impl Into<String>, model: impl Into<String>, created: u64) -> Self {
        Self {
            id: id.into(),
            model: model.into(),
            created,
            text: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            end: None,
        }
    }

    /// Takes the next event; events after the end change nothing.
    pub fn event(&mut self, event: &Event) {
        if self.end.is_some() {
            return;
        }
        match event {
            Event::Started { .. } => {}
            Event::Text(text) => self.text.push_str(text),
            Event::Reasoning(text) => self.reasoning.push_str(text),
            Event::ToolCall { index, id, name } => {
                let function = Function { name: name.clone(), arguments: String::new() };
                self.calls.push((*index, Call { id: id.clone(), kind: "function", function }));
            }
            Event::ToolArguments { index, delta } => {
                let call = self.calls.iter_mut().rev().find(|(at, _)| at == index);
                if let Some((_, call)) = call {
                    call.function.arguments.push_str(delta);
                }
            }
            Event::Finished { reason, usage, timings } => {
                self.end = Some(Ok((*reason, *usage, *timings)));
            }
            Event::Failed(failure) => self.end = Some(Err(ErrorBody::from_failure(failure))),
        }
    }

    /// The body of a complete answer.
    ///
    /// # Errors
    ///
    /// The failure that ended the answer; an answer that has not ended is a fault of ours.
    pub fn finish(self) -> Result<Vec<u8>, ErrorBody> {
        let Some(end) = self.end else {
            return Err(ErrorBody::internal("the answer ended without its last event"));
        };
        let (reason, usage, timings) = end?;
        let mut calls: Vec<Call> = self.calls.into_iter().map(|(_, call)| call).collect();
        for call in calls.iter_mut().filter(|call| call.function.arguments.is_empty()) {
            call.function.arguments.push_str("{}");
        }
        let silent = self.text.is_empty() && !calls.is_empty();
        let completion = Completion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: &self.model,
            choices: [Choice {
                index: 0,
                message: Answer {
                    role: "assistant",
                    content: (!silent).then_some(&self.text),
                    refusal: None,
                    reasoning_content: &self.reasoning,
                    tool_calls: &calls,
                },
                logprobs: None,
                finish_reason: finish_reason(reason),
            }],
            usage: UsageBody::from(&usage),
            timings: TimingsBody::new(&usage, &timings),
        };
        Ok(serde_json::to_vec(&completion).expect("wire types always serialise"))
    }
}
