//! Events -> server-sent events, or one body.

use dialog::{Event, FinishReason, TokenLogprob};

use super::types::{Failure, Frame, Incomplete, Item, Part, Response, UsageBody};
use super::{Echo, ReplyOptions};
use crate::answer::{Answer, Block, Change, End, Kind};
use crate::logprobs::tokens;
use crate::projector::{EventCollector, EventStream, Stamp};
use crate::{ErrorBody, sse};

const IN_PROGRESS: &str = "in_progress";
const COMPLETED: &str = "completed";
const INCOMPLETE: &str = "incomplete";

/// The response as far as it is known.
struct Draft {
    id: String,
    stamp: Stamp,
    echo: Echo,
    answer: Answer,
    /// Of the items, in their order.
    item_ids: Vec<String>,
}

impl Draft {
    fn new(stamp: Stamp, echo: Echo) -> Self {
        let id = format!("resp_{}", stamp.nonce);
        Self { id, stamp, echo, answer: Answer::default(), item_ids: Vec::new() }
    }

    fn take<'e>(&mut self, event: &'e Event) -> Vec<(usize, Change<'e>)> {
        let changes = self.answer.take(event);
        for (index, block) in self.answer.blocks().iter().enumerate().skip(self.item_ids.len()) {
            let prefix = match block.kind {
                Kind::Reasoning => "rs",
                Kind::Text => "msg",
                Kind::Call { .. } => "fc",
            };
            self.item_ids.push(format!("{prefix}_{}_{index}", self.stamp.nonce));
        }
        changes
    }

    fn response(&self, status: &'static str) -> Response<'_> {
        Response {
            id: &self.id,
            object: "response",
            created_at: self.stamp.created,
            status,
            background: false,
            error: None,
            incomplete_details: None,
            model: &self.stamp.model,
            output: Vec::new(),
            previous_response_id: None,
            store: false,
            echo: &self.echo,
            usage: None,
        }
    }

    /// The response when nothing more comes; its status names the event too.
    fn settled<'a>(&'a self, end: &'a Result<End, ErrorBody>) -> Response<'a> {
        let last = self.answer.blocks().len().saturating_sub(1);
        let status = |index| if index == last { self.last_status() } else { COMPLETED };
        let blocks = self.answer.blocks().iter().enumerate();
        let output = blocks.map(|(index, block)| self.item(index, block, status(index))).collect();
        match end {
            Ok(End { reason: FinishReason::Length, usage, .. }) => Response {
                output,
                incomplete_details: Some(Incomplete { reason: "max_output_tokens" }),
                usage: Some(UsageBody::from(usage)),
                ..self.response(INCOMPLETE)
            },
            Ok(End { usage, .. }) => {
                let usage = Some(UsageBody::from(usage));
                Response { output, usage, ..self.response(COMPLETED) }
            }
            Err(error) => {
                let error = Some(Failure { code: "server_error", message: &error.message });
                Response { output, error, ..self.response("failed") }
            }
        }
    }

    /// Only the last item can have been cut short.
    fn last_status(&self) -> &'static str {
        match self.answer.end() {
            Ok(End { reason: FinishReason::Stop | FinishReason::ToolCalls, .. }) => COMPLETED,
            Ok(End { reason: FinishReason::Length, .. }) | Err(_) => INCOMPLETE,
        }
    }

    fn item<'a>(&'a self, index: usize, block: &'a Block, status: &'static str) -> Item<'a> {
        let (id, text) = (self.item_ids[index].as_str(), block.text.as_str());
        let is_begun = status != IN_PROGRESS;
        match &block.kind {
            Kind::Reasoning => {
                let content = is_begun.then_some(Part::ReasoningText { text });
                let content = content.into_iter().collect();
                Item::Reasoning { id, status, summary: [], content, encrypted_content: None }
            }
            Kind::Text => {
                let content = is_begun
                    .then(|| Part::output_text(text, &block.logprobs))
                    .into_iter()
                    .collect();
                Item::Message { id, status, role: "assistant", content }
            }
            Kind::Call { id: call_id, name } => {
                let arguments = if is_begun { text } else { "" };
                Item::FunctionCall { id, status, call_id, name, arguments }
            }
        }
    }
}

/// Turns the events of one answer into server-sent events.
///
/// Items are announced when their first word comes, so that their indices are right from the start
/// (requirement 12).
pub struct Stream {
    draft: Draft,
    next_number: u64,
}

impl Stream {
    /// A stream with this stamp.
    pub fn new(stamp: Stamp, options: ReplyOptions) -> Self {
        Self { draft: Draft::new(stamp, options.echo), next_number: 0 }
    }

    fn change(&mut self, out: &mut Vec<u8>, index: usize, change: &Change<'_>) {
        let number = &mut self.next_number;
        let draft = &self.draft;
        let block = &draft.answer.blocks()[index];
        let on_item = || Frame { output_index: Some(index), ..Frame::default() };
        let within = || Frame { item_id: Some(&draft.item_ids[index]), ..on_item() };
        let on_part = || Frame { content_index: Some(0), ..within() };
        match change {
            Change::Open => {
                let item = Some(draft.item(index, block, IN_PROGRESS));
                push(out, number, "response.output_item.added", Frame { item, ..on_item() });
                if let Some(part) = part(&block.kind, "", &[]) {
                    let frame = Frame { part: Some(part), ..on_part() };
                    push(out, number, "response.content_part.added", frame);
                }
            }
            Change::Delta(words) => {
                let delta = Some(*words);
                let (name, frame) = match block.kind {
                    Kind::Reasoning => ("response.reasoning_text.delta", on_part()),
                    Kind::Text => {
                        let logprobs = Some(tokens(draft.answer.fresh_logprobs()));
                        let frame = Frame { logprobs, ..on_part() };
                        ("response.output_text.delta", frame)
                    }
                    Kind::Call { .. } => ("response.function_call_arguments.delta", within()),
                };
                push(out, number, name, Frame { delta, ..frame });
            }
            Change::Close => {
                let text = Some(block.text.as_str());
                let (kind, frame) = match &block.kind {
                    Kind::Reasoning => {
                        ("response.reasoning_text.done", Frame { text, ..on_part() })
                    }
                    Kind::Text => {
                        let logprobs = Some(tokens(&block.logprobs));
                        let frame = Frame { text, logprobs, ..on_part() };
                        ("response.output_text.done", frame)
                    }
                    Kind::Call { name, .. } => {
                        let frame = Frame { arguments: text, name: Some(name), ..within() };
                        ("response.function_call_arguments.done", frame)
                    }
                };
                push(out, number, kind, frame);
                if let Some(part) = part(&block.kind, &block.text, &block.logprobs) {
                    let frame = Frame { part: Some(part), ..on_part() };
                    push(out, number, "response.content_part.done", frame);
                }
                let cut = draft.answer.ended().then(|| draft.last_status());
                let item = Some(draft.item(index, block, cut.unwrap_or(COMPLETED)));
                push(out, number, "response.output_item.done", Frame { item, ..on_item() });
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
        if matches!(event, Event::Started { .. }) {
            for name in ["response.created", "response.in_progress"] {
                let response = Some(self.draft.response(IN_PROGRESS));
                let frame = Frame { response, ..Frame::default() };
                push(&mut out, &mut self.next_number, name, frame);
            }
        }
        for (index, change) in self.draft.take(event) {
            self.change(&mut out, index, &change);
        }
        if self.ended() {
            let end = self.draft.answer.end();
            let response = self.draft.settled(&end);
            let name = match response.status {
                COMPLETED => "response.completed",
                INCOMPLETE => "response.incomplete",
                _ => "response.failed",
            };
            let frame = Frame { response: Some(response), ..Frame::default() };
            push(&mut out, &mut self.next_number, name, frame);
        }
        out
    }

    fn keep_alive(&self) -> &'static [u8] {
        sse::KEEP_ALIVE
    }

    fn ended(&self) -> bool {
        self.draft.answer.ended()
    }
}

/// Gathers the events of one answer into one body.
pub struct Collector {
    draft: Draft,
}

impl Collector {
    /// A body with this stamp.
    pub fn new(stamp: Stamp, options: ReplyOptions) -> Self {
        Self { draft: Draft::new(stamp, options.echo) }
    }
}

impl EventCollector for Collector {
    fn event(&mut self, event: &Event) {
        self.draft.take(event);
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, ErrorBody> {
        let end = Ok(self.draft.answer.end()?);
        let response = self.draft.settled(&end);
        Ok(serde_json::to_vec(&response).expect("wire types always serialise"))
    }
}

/// Whether a frame, without its blank line, ends a stream. `is_closed`: the blank line is there.
///
/// The name at the front is enough, since these events hold the whole answer.
pub fn is_last(frame: &[u8], is_closed: bool) -> bool {
    let ends = [
        &b"response.completed"[..],
        b"response.incomplete",
        b"response.failed",
        b"response.cancelled",
        b"error",
    ];
    is_closed && ends.contains(&sse::read(frame).0)
}

/// Whether a piece of a stream carries generated words.
pub fn shows_words(piece: &[u8]) -> bool {
    ["output_text", "reasoning_text", "reasoning_summary_text", "function_call_arguments"]
        .iter()
        .any(|what| sse::holds(piece, format!("event: response.{what}.delta").as_bytes()))
}

fn part<'a>(kind: &Kind, text: &'a str, logprobs: &'a [TokenLogprob]) -> Option<Part<'a>> {
    match kind {
        Kind::Reasoning => Some(Part::ReasoningText { text }),
        Kind::Text => Some(Part::output_text(text, logprobs)),
        Kind::Call { .. } => None,
    }
}

/// Requirement 10: name and number are part of the payload.
fn push(out: &mut Vec<u8>, number: &mut u64, kind: &'static str, frame: Frame<'_>) {
    let frame = Frame { kind, sequence_number: *number, ..frame };
    *number += 1;
    sse::push_event(out, kind, &frame);
}
