//! One answer's way out, whatever its dialect.

use dialog::Event;

use crate::ErrorBody;

/// What marks one answer; each dialect writes of it what its clients expect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Letters and digits that no other answer has (requirement 120); ids are made of it.
    pub nonce: String,
    /// The id under which the request is logged, for errors inside a stream.
    pub request_id: String,
    /// The model's id.
    pub model: String,
    /// Unix seconds.
    pub created: u64,
}

/// Events -> server-sent events.
pub trait EventStream: Send {
    /// The complete frames for one event; empty when there is nothing to say. Events after the end
    /// of the answer give nothing, so that an end is written exactly once.
    fn event(&mut self, event: &Event) -> Vec<u8>;

    /// The same for one of several answers, in dialects that have a place for more than the first;
    /// they end together.
    fn choice(&mut self, choice: u32, event: &Event) -> Vec<u8> {
        debug_assert_eq!(choice, 0, "this dialect tells one answer");
        self.event(event)
    }

    /// What to send after a silence.
    fn keep_alive(&self) -> &'static [u8];

    /// Whether the terminal event has been written.
    fn ended(&self) -> bool;
}

/// Events -> one JSON body.
pub trait EventCollector: Send {
    /// Takes the next event; events after the end change nothing.
    fn event(&mut self, event: &Event);

    /// The same for one of several answers, in dialects that have a place for more than the first.
    fn choice(&mut self, choice: u32, event: &Event) {
        debug_assert_eq!(choice, 0, "this dialect tells one answer");
        self.event(event);
    }

    /// The body of a complete answer.
    ///
    /// # Errors
    ///
    /// The failure that ended the answer; an answer that has not ended is a fault of ours.
    fn finish(self: Box<Self>) -> Result<Vec<u8>, ErrorBody>;
}

/// Tells one answer as its caller asked for it.
pub enum Projector {
    /// Event by event.
    Stream(Box<dyn EventStream>),
    /// At once, at the end.
    Body(Box<dyn EventCollector>),
}

impl Projector {
    /// The `content-type` of the answer.
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Stream(_) => "text/event-stream",
            Self::Body(_) => "application/json",
        }
    }
}
