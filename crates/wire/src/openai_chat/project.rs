//! Events -> chunks of a stream, or one body.

use dialog::{Event, FinishReason, Timings, TokenLogprob, Usage};

use super::ReplyOptions;
use super::types::{
    Call, CallDelta, Choice, Chunk, ChunkChoice, Completion, Delta, Function, FunctionDelta,
    Message, finish_reason,
};
use crate::answer::{Answer, Block, End, Kind};
use crate::logprobs::ContentBody;
use crate::projector::{EventCollector, EventStream};
use crate::usage::{TimingsBody, UsageBody, add_choice};
use crate::{ErrorBody, sse};

/// Turns the events of one or more answers into server-sent events.
///
/// Events after the end of an answer give nothing, so that an end is written exactly once.
pub struct Stream {
    id: String,
    model: String,
    created: u64,
    include_usage: bool,
    choices: Vec<ChoiceState>,
    usage: Usage,
    ended: bool,
}

/// One of the answers.
#[derive(Clone, Default)]
struct ChoiceState {
    /// A call whose arguments have not begun; it must show at least an empty object.
    bare_call: Option<u32>,
    /// Of tokens whose words have not come yet.
    logprobs: Vec<TokenLogprob>,
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
            choices: vec![ChoiceState::default(); options.choices as usize],
            usage: Usage::default(),
            ended: false,
        }
    }

    fn take(&mut self, choice: u32, event: &Event) -> Vec<u8> {
        let mut out = Vec::new();
        let state = self.choices.get(choice as usize);
        if self.ended || state.is_none_or(|state| state.ended) {
            return out;
        }
        self.settle_bare_call(&mut out, choice, event);
        match event {
            Event::Started { .. } => {
                let delta =
                    Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
                self.delta(&mut out, choice, delta, &[]);
            }
            Event::Text(text) => {
                let logprobs = std::mem::take(&mut self.choices[choice as usize].logprobs);
                let delta = Delta { content: Some(text), ..Delta::default() };
                self.delta(&mut out, choice, delta, &logprobs);
            }
            Event::Reasoning(text) => {
                let delta = Delta { reasoning_content: Some(text), ..Delta::default() };
                self.delta(&mut out, choice, delta, &[]);
            }
            Event::Logprobs(logprobs) => {
                self.choices[choice as usize].logprobs.extend_from_slice(logprobs);
            }
            Event::ToolCall { index, id, name } => {
                self.choices[choice as usize].bare_call = Some(*index);
                self.call(&mut out, choice, *index, Some((id, name)), "");
            }
            Event::ToolArguments { index, delta } => {
                self.call(&mut out, choice, *index, None, delta);
            }
            Event::StopText(_) => {}
            Event::Finished { reason, usage, timings } => {
                add_choice(&mut self.usage, choice, usage);
                self.finish(&mut out, choice, *reason, &TimingsBody::new(usage, timings));
            }
            Event::Failed(failure) => {
                self.ended = true;
                sse::push_data(&mut out, &ErrorBody::from_failure(failure).envelope());
            }
        }
        out
    }

    fn settle_bare_call(&mut self, out: &mut Vec<u8>, choice: u32, next: &Event) {
        let arguments = match next {
            Event::ToolArguments { index, delta } if !delta.is_empty() => Some(*index),
            Event::ToolArguments { .. } | Event::Failed(_) | Event::Logprobs(_) => return,
            _ => None,
        };
        if let Some(index) = self.choices[choice as usize].bare_call.take()
            && arguments != Some(index)
        {
            self.call(out, choice, index, None, "{}");
        }
    }

    fn call(
        &self,
        out: &mut Vec<u8>,
        choice: u32,
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
        self.delta(out, choice, Delta { tool_calls: Some([call]), ..Delta::default() }, &[]);
    }

    fn delta(&self, out: &mut Vec<u8>, index: u32, delta: Delta<'_>, logprobs: &[TokenLogprob]) {
        let logprobs = ContentBody::new(logprobs);
        let choice = ChunkChoice { index, delta, logprobs, finish_reason: None };
        self.chunk(out, &[choice], None, None);
    }

    fn finish(
        &mut self,
        out: &mut Vec<u8>,
        index: u32,
        reason: FinishReason,
        timings: &TimingsBody,
    ) {
        let state = &mut self.choices[index as usize];
        state.ended = true;
        // Tokens whose words never came, as those of a stop text.
        let logprobs = std::mem::take(&mut state.logprobs);
        let choice = ChunkChoice {
            index,
            delta: Delta::default(),
            logprobs: ContentBody::new(&logprobs),
            finish_reason: Some(finish_reason(reason)),
        };
        self.chunk(out, &[choice], None, Some(*timings));
        if self.choices.iter().any(|choice| !choice.ended) {
            return;
        }
        // Requirement 134: only when asked for.
        if self.include_usage {
            self.chunk(out, &[], Some(UsageBody::from(&self.usage)), None);
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

/// Gathers the events of one or more answers into one body.
pub struct Collector {
    id: String,
    model: String,
    created: u64,
    answers: Vec<Answer>,
}

impl Collector {
    /// A body with this id, model and time (Unix seconds).
    pub fn new(
        id: impl Into<String>,
        model: impl Into<String>,
        created: u64,
        options: &ReplyOptions,
    ) -> Self {
        let answers = (0..options.choices).map(|_| Answer::default()).collect();
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
        self.ended
    }
}

impl EventCollector for Collector {
    fn event(&mut self, event: &Event) {
        self.choice(0, event);
    }

    fn choice(&mut self, choice: u32, event: &Event) {
        if let Some(answer) = self.answers.get_mut(choice as usize) {
            answer.take(event);
        }
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, ErrorBody> {
        let ends: Vec<End> = self.answers.iter().map(Answer::end).collect::<Result<_, _>>()?;
        let (mut usage, mut timings) = (Usage::default(), Timings::default());
        for (index, end) in (0..).zip(&ends) {
            add_choice(&mut usage, index, &end.usage);
            if index == 0 {
                timings = end.timings;
            }
        }
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
