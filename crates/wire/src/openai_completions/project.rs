//! Events -> chunks of a stream, or one body.

use dialog::Event;

use super::ReplyOptions;
use super::types::{Choice, Completion, finish_reason};
use crate::answer::{Answer, Change, End};
use crate::answers::{Answers, Ends};
use crate::logprobs::ListsBody;
use crate::projector::{EventCollector, EventStream, Stamp};
use crate::usage::{TimingsBody, UsageBody};
use crate::{ErrorBody, sse};

/// Turns the events of one or more answers into server-sent events.
pub struct Stream {
    head: Head,
    answers: Answers,
    /// Of each answer: characters of its tokens so far.
    offsets: Vec<usize>,
}

/// What all chunks of a stream have in common.
struct Head {
    id: String,
    stamp: Stamp,
    include_usage: bool,
}

impl Stream {
    /// A stream whose chunks all carry the same stamp.
    pub fn new(stamp: Stamp, options: &ReplyOptions) -> Self {
        Self {
            head: Head { id: id(&stamp), stamp, include_usage: options.include_usage },
            answers: Answers::new(options.choices),
            offsets: vec![0; options.choices as usize],
        }
    }

    fn take(&mut self, index: u32, event: &Event) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(answer) = self.answers.open(index) else { return out };
        let offset = &mut self.offsets[index as usize];
        if matches!(event, Event::Started { .. }) {
            // Clients and gateways see that the answer has begun before its first word.
            self.head.chunk(&mut out, &[choice(index, "", None)], None, None);
        }
        for (_, change) in answer.take(event) {
            if let Change::Delta(delta) = change {
                let logprobs = ListsBody::new(answer.fresh_logprobs(), offset);
                let told = Choice { logprobs, ..choice(index, delta, None) };
                self.head.chunk(&mut out, &[told], None, None);
            }
        }
        if answer.ended() {
            // Of tokens whose words never came, as those of a stop text.
            let last = ListsBody::new(answer.fresh_logprobs(), offset);
            let end = answer.end();
            self.finish(&mut out, index, end, last);
        }
        out
    }

    fn finish(
        &mut self,
        out: &mut Vec<u8>,
        index: u32,
        end: Result<End, ErrorBody>,
        logprobs: Option<ListsBody>,
    ) {
        let End { reason, usage, timings } = match end {
            Ok(end) => end,
            Err(error) => {
                self.answers.fail();
                return sse::push_data(out, &error.envelope());
            }
        };
        let last = Choice { logprobs, ..choice(index, "", Some(finish_reason(reason))) };
        self.head.chunk(out, &[last], None, Some(TimingsBody::new(&usage, &timings)));
        let Ok(Ends { usage, .. }) = self.answers.ends() else { return };
        // Requirement 134: only when asked for.
        if self.head.include_usage {
            self.head.chunk(out, &[], Some(UsageBody::from(&usage)), None);
        }
        out.extend_from_slice(sse::DONE);
    }
}

impl Head {
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
        self.answers.ended()
    }
}

/// Gathers the events of one or more answers into one body.
pub struct Collector {
    stamp: Stamp,
    answers: Answers,
}

impl Collector {
    /// A body with this stamp.
    pub fn new(stamp: Stamp, options: &ReplyOptions) -> Self {
        Self { stamp, answers: Answers::new(options.choices) }
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
