//! Events -> chunks of a stream, or one body.

use dialog::{Event, Timings, Usage};

use super::ReplyOptions;
use super::types::{Choice, Completion, finish_reason};
use crate::answer::{Answer, Change, End};
use crate::logprobs::ListsBody;
use crate::projector::{EventCollector, EventStream, Stamp};
use crate::usage::{TimingsBody, UsageBody, add_choice};
use crate::{ErrorBody, sse};

/// Turns the events of one or more answers into server-sent events.
pub struct Stream {
    id: String,
    stamp: Stamp,
    include_usage: bool,
    choices: Vec<ChoiceState>,
    usage: Usage,
    ended: bool,
}

/// One of the answers.
#[derive(Default)]
struct ChoiceState {
    answer: Answer,
    /// Characters of its tokens so far.
    offset: usize,
}

impl Stream {
    /// A stream whose chunks all carry the same stamp.
    pub fn new(stamp: Stamp, options: &ReplyOptions) -> Self {
        Self {
            id: id(&stamp),
            stamp,
            include_usage: options.include_usage,
            choices: (0..options.choices).map(|_| ChoiceState::default()).collect(),
            usage: Usage::default(),
            ended: false,
        }
    }

    fn take(&mut self, index: u32, event: &Event) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(state) = self.choices.get_mut(index as usize) else { return out };
        if self.ended || state.answer.ended() {
            return out;
        }
        let mut words = Vec::new();
        if matches!(event, Event::Started { .. }) {
            // Clients and gateways see that the answer has begun before its first word.
            words.push(choice(index, "", None));
        }
        for (_, change) in state.answer.take(event) {
            if let Change::Delta(delta) = change {
                let logprobs = ListsBody::new(state.answer.fresh_logprobs(), &mut state.offset);
                words.push(Choice { logprobs, ..choice(index, delta, None) });
            }
        }
        let end = state.answer.ended().then(|| state.answer.end());
        for choice in words {
            self.chunk(&mut out, &[choice], None, None);
        }
        if let Some(end) = end {
            self.finish(&mut out, index, end);
        }
        out
    }

    fn finish(&mut self, out: &mut Vec<u8>, index: u32, end: Result<End, ErrorBody>) {
        let End { reason, usage, timings } = match end {
            Ok(end) => end,
            Err(error) => {
                self.ended = true;
                return sse::push_data(out, &error.envelope());
            }
        };
        add_choice(&mut self.usage, index, &usage);
        let last = choice(index, "", Some(finish_reason(reason)));
        self.chunk(out, &[last], None, Some(TimingsBody::new(&usage, &timings)));
        if self.choices.iter().any(|choice| !choice.answer.ended()) {
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
        choices: &[Choice<'_>],
        usage: Option<UsageBody>,
        timings: Option<TimingsBody>,
    ) {
        let chunk = Completion {
            id: &self.id,
            object: "text_completion",
            created: self.stamp.created,
            model: &self.stamp.model,
            choices,
            usage: self.include_usage.then_some(usage),
            timings,
        };
        sse::push_data(out, &chunk);
    }
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

/// Gathers the events of one or more answers into one body.
pub struct Collector {
    stamp: Stamp,
    answers: Vec<Answer>,
}

impl Collector {
    /// A body with this stamp.
    pub fn new(stamp: Stamp, options: &ReplyOptions) -> Self {
        Self { stamp, answers: (0..options.choices).map(|_| Answer::default()).collect() }
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
        let texts: Vec<String> = self.answers.iter().map(text).collect();
        let told = self.answers.iter().zip(&ends).zip(&texts);
        let choices: Vec<Choice<'_>> = (0..)
            .zip(told)
            .map(|(index, ((answer, end), text))| {
                let tokens: Vec<_> =
                    answer.blocks().iter().flat_map(|block| block.logprobs.clone()).collect();
                let logprobs = ListsBody::new(&tokens, &mut 0);
                Choice { logprobs, ..choice(index, text, Some(finish_reason(end.reason))) }
            })
            .collect();
        let body = Completion {
            id: &id(&self.stamp),
            object: "text_completion",
            created: self.stamp.created,
            model: &self.stamp.model,
            choices: &choices,
            usage: Some(Some(UsageBody::from(&usage))),
            timings: Some(TimingsBody::new(&usage, &timings)),
        };
        Ok(serde_json::to_vec(&body).expect("wire types always serialise"))
    }
}

/// This dialect tells thoughts and words alike.
fn text(answer: &Answer) -> String {
    answer.blocks().iter().map(|block| block.text.as_str()).collect()
}

/// Whether a piece of a stream carries generated words.
pub fn shows_words(piece: &[u8]) -> bool {
    sse::has_filled(piece, b"\"text\":")
}

fn id(stamp: &Stamp) -> String {
    format!("cmpl-{}", stamp.nonce)
}

fn choice<'a>(index: u32, text: &'a str, finish_reason: Option<&'static str>) -> Choice<'a> {
    Choice { text, index, logprobs: None, finish_reason }
}
