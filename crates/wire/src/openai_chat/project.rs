//! Events -> chunks of a stream, or one body.

use dialog::{Event, TokenLogprob};

use super::ReplyOptions;
use super::types::{
    Call, CallDelta, Choice, Chunk, ChunkChoice, Completion, Delta, Function, FunctionDelta,
    Message, finish_reason,
};
use crate::answer::{Answer, Block, Change, End, Kind};
use crate::answers::{Answers, Ends};
use crate::logprobs::ContentBody;
use crate::projector::{EventCollector, EventStream};
use crate::usage::{TimingsBody, UsageBody};
use crate::{ErrorBody, sse};

/// Turns the events of one or more answers into server-sent events.
///
/// Events after the end of an answer give nothing, so that an end is written exactly once.
pub struct Stream {
    head: Head,
    answers: Answers,
}

/// What all chunks of a stream have in common.
struct Head {
    id: String,
    model: String,
    created: u64,
    include_usage: bool,
}

impl Stream {
    /// A stream whose chunks all carry this id, model and time (Unix seconds).
    pub fn new(
        id: impl Into<String>,
        model: impl Into<String>,
        created: u64,
        options: &ReplyOptions,
    ) -> Self {
        let (id, model, include_usage) = (id.into(), model.into(), options.include_usage);
        let answers = Answers::new(options.choices);
        Self { head: Head { id, model, created, include_usage }, answers }
    }

    fn take(&mut self, choice: u32, event: &Event) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(answer) = self.answers.open(choice) else { return out };
        if matches!(event, Event::Started { .. }) {
            let delta = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
            self.head.delta(&mut out, choice, delta, &[]);
        }
        for (index, change) in answer.take(event) {
            let Some(delta) = delta(answer.blocks(), index, &change) else { continue };
            let logprobs = match delta.content {
                Some(_) => answer.fresh_logprobs(),
                None => &[],
            };
            self.head.delta(&mut out, choice, delta, logprobs);
        }
        if answer.ended() {
            let end = answer.end();
            let last = answer.fresh_logprobs().to_vec();
            self.finish(&mut out, choice, end, &last);
        }
        out
    }

    /// `last` are of tokens whose words never came, as those of a stop text.
    fn finish(
        &mut self,
        out: &mut Vec<u8>,
        index: u32,
        end: Result<End, ErrorBody>,
        last: &[TokenLogprob],
    ) {
        let End { reason, usage, timings } = match end {
            Ok(end) => end,
            Err(error) => {
                self.answers.fail();
                return sse::push_data(out, &error.envelope());
            }
        };
        let choice = ChunkChoice {
            index,
            delta: Delta::default(),
            logprobs: ContentBody::new(last),
            finish_reason: Some(finish_reason(reason)),
        };
        self.head.chunk(out, &[choice], None, Some(TimingsBody::new(&usage, &timings)));
        let Ok(Ends { usage, .. }) = self.answers.ends() else { return };
        // Requirement 134: only when asked for.
        if self.head.include_usage {
            self.head.chunk(out, &[], Some(UsageBody::from(&usage)), None);
        }
        out.extend_from_slice(sse::DONE);
    }
}

impl Head {
    fn delta(&self, out: &mut Vec<u8>, index: u32, delta: Delta<'_>, logprobs: &[TokenLogprob]) {
        let logprobs = ContentBody::new(logprobs);
        let choice = ChunkChoice { index, delta, logprobs, finish_reason: None };
        self.chunk(out, &[choice], None, None);
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

/// What a change of a block tells; words and thoughts need no announcement.
fn delta<'a>(blocks: &'a [Block], index: usize, change: &Change<'a>) -> Option<Delta<'a>> {
    let (opening, arguments) = match (change, &blocks[index].kind) {
        (Change::Delta(words), Kind::Text) => {
            return Some(Delta { content: Some(*words), ..Delta::default() });
        }
        (Change::Delta(words), Kind::Reasoning) => {
            return Some(Delta { reasoning_content: Some(*words), ..Delta::default() });
        }
        (Change::Open, Kind::Call { id, name }) => (Some((id.as_str(), name.as_str())), ""),
        (Change::Delta(words), Kind::Call { .. }) => (None, *words),
        (Change::Open | Change::Close, _) => return None,
    };
    let is_call = |block: &&Block| matches!(block.kind, Kind::Call { .. });
    let call = CallDelta {
        index: blocks[..index].iter().filter(is_call).count() as u32,
        id: opening.map(|(id, _)| id),
        kind: opening.map(|_| "function"),
        function: FunctionDelta { name: opening.map(|(_, name)| name), arguments },
    };
    Some(Delta { tool_calls: Some([call]), ..Delta::default() })
}

/// Gathers the events of one or more answers into one body.
pub struct Collector {
    id: String,
    model: String,
    created: u64,
    answers: Answers,
}

impl Collector {
    /// A body with this id, model and time (Unix seconds).
    pub fn new(
        id: impl Into<String>,
        model: impl Into<String>,
        created: u64,
        options: &ReplyOptions,
    ) -> Self {
        let answers = Answers::new(options.choices);
        Self { id: id.into(), model: model.into(), created, answers }
    }
}

fn choice<'a>(index: usize, answer: &'a Answer, end: &End) -> Choice<'a> {
    let calls: Vec<Call<'_>> = answer.blocks().iter().filter_map(call).collect();
    let text = answer.joined(&Kind::Text);
    let silent = text.is_empty() && !calls.is_empty();
    let words = answer.blocks().iter().filter(|block| !block.logprobs.is_empty());
    // Words are one block, unless calls or thoughts stand between them.
    let logprobs = words.map(|block| &block.logprobs[..]);
    Choice {
        index: index as u32,
        message: Message {
            role: "assistant",
            content: (!silent).then_some(text),
            refusal: None,
            reasoning_content: answer.joined(&Kind::Reasoning),
            tool_calls: calls,
        },
        logprobs: ContentBody::joined(logprobs),
        finish_reason: finish_reason(end.reason),
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
        self.take(0, event)
    }

    fn choice(&mut self, choice: u32, event: &Event) -> Vec<u8> {
        self.take(choice, event)
    }

    fn keep_alive(&self) -> &'static [u8] {
        sse::KEEP_ALIVE
    }

    fn ended(&self) -> bool {
        self.answers.ended()
    }
}

impl EventCollector for Collector {
    fn event(&mut self, event: &Event) {
        self.choice(0, event);
    }

    fn choice(&mut self, choice: u32, event: &Event) {
        self.answers.take(choice, event);
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, ErrorBody> {
        let Ends { ends, usage, timings } = self.answers.ends()?;
        let choices = self.answers.iter().zip(&ends).enumerate();
        let completion = Completion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: &self.model,
            choices: choices.map(|(index, (answer, end))| choice(index, answer, end)).collect(),
            usage: UsageBody::from(&usage),
            timings: TimingsBody::new(&usage, &timings),
        };
        Ok(serde_json::to_vec(&completion).expect("wire types always serialise"))
    }
}
