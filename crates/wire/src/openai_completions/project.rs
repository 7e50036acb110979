//! Events -> chunks of a stream, or one body.

use dialog::Event;

use super::ReplyOptions;
use super::types::{Choice, Completion, finish_reason};
use crate::answer::{Answer, Change, End};
use crate::projector::{EventCollector, EventStream, Stamp};
use crate::usage::{TimingsBody, UsageBody};
use crate::{ErrorBody, sse};

/// Turns the events of one answer into server-sent events.
pub struct Stream {
    id: String,
    stamp: Stamp,
    include_usage: bool,
    answer: Answer,
}

impl Stream {
    /// A stream whose chunks all carry the same stamp.
    pub fn new(stamp: Stamp, options: &ReplyOptions) -> Self {
        let include_usage = options.include_usage;
        Self { id: id(&stamp), stamp, include_usage, answer: Answer::default() }
    }

    fn finish(&self, out: &mut Vec<u8>) {
        match self.answer.end() {
            Ok(End { reason, usage, timings }) => {
                let reason = Some(finish_reason(reason));
                let timings = TimingsBody::new(&usage, &timings);
                self.chunk(out, &[choice("", reason)], None, Some(timings));
                // Requirement 134: only when asked for.
                if self.include_usage {
                    self.chunk(out, &[], Some(UsageBody::from(&usage)), None);
                }
                out.extend_from_slice(sse::DONE);
            }
            Err(error) => sse::push_data(out, &error.envelope()),
        }
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
        let mut out = Vec::new();
        if self.ended() {
            return out;
        }
        let started = matches!(event, Event::Started { .. });
        if started {
            // Clients and gateways see that the answer has begun before its first word.
            self.chunk(&mut out, &[choice("", None)], None, None);
        }
        for (_, change) in self.answer.take(event) {
            if let Change::Delta(words) = change {
                self.chunk(&mut out, &[choice(words, None)], None, None);
            }
        }
        if self.ended() {
            self.finish(&mut out);
        }
        out
    }

    fn keep_alive(&self) -> &'static [u8] {
        sse::KEEP_ALIVE
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
        let End { reason, usage, timings } = self.answer.end()?;
        let text: String = self.answer.blocks().iter().map(|block| block.text.as_str()).collect();
        let body = Completion {
            id: &id(&self.stamp),
            object: "text_completion",
            created: self.stamp.created,
            model: &self.stamp.model,
            choices: &[choice(&text, Some(finish_reason(reason)))],
            usage: Some(Some(UsageBody::from(&usage))),
            timings: Some(TimingsBody::new(&usage, &timings)),
        };
        Ok(serde_json::to_vec(&body).expect("wire types always serialise"))
    }
}

/// Whether a piece of a stream carries generated words.
pub fn shows_words(piece: &[u8]) -> bool {
    sse::has_filled(piece, b"\"text\":")
}

fn id(stamp: &Stamp) -> String {
    format!("cmpl-{}", stamp.nonce)
}

fn choice<'a>(text: &'a str, finish_reason: Option<&'static str>) -> Choice<'a> {
    Choice { text, index: 0, logprobs: None, finish_reason }
}
