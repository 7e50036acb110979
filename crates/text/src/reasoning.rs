//! Reasoning told from the answer.
//!
//! A model thinks once, at the beginning: the opening marker counts only as the first thing that
//! is said (or stands in the prompt already), the closing one only after it. Markers anywhere else
//! are words like others, so that an answer about markers stays whole. Line breaks next to the
//! markers belong to neither side.

use crate::stop::partial_suffix;

/// How a model marks its reasoning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasoningMarkers {
    /// `<think>`.
    pub open: String,
    /// `</think>`.
    pub close: String,
}

impl Default for ReasoningMarkers {
    fn default() -> Self {
        Self { open: "<think>".to_owned(), close: "</think>".to_owned() }
    }
}

/// A piece of what a model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thought {
    /// Said to itself.
    Reasoning(String),
    /// Said to the caller.
    Text(String),
}

/// Splits a model's words into reasoning and answer as they come.
#[derive(Clone, Debug)]
pub struct ReasoningSplitter {
    markers: ReasoningMarkers,
    state: State,
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space yet.
    Start,
    /// In the reasoning; `fresh` until its first word.
    Inside { fresh: bool },
    /// Behind the closing marker, before the answer's first word.
    Closed,
    /// In the answer, to its end.
    Answer,
}

impl ReasoningSplitter {
    /// A splitter; `open` when the prompt ends inside the reasoning (requirement 22).
    pub fn new(markers: ReasoningMarkers, open: bool) -> Self {
        let state = if open { State::Inside { fresh: true } } else { State::Start };
        Self { markers, state, held: String::new() }
    }

    /// A splitter for answers that are told as they stand, markers included.
    pub fn none(markers: ReasoningMarkers) -> Self {
        Self { markers, state: State::Answer, held: String::new() }
    }

    /// Whether the next word belongs to the reasoning, as far as can be told.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Inside { .. })
    }

    /// Takes more text and gives what can be told apart.
    pub fn push(&mut self, text: &str) -> Vec<Thought> {
        self.held.push_str(text);
        let mut thoughts = Vec::new();
        while self.advance(&mut thoughts) {}
        thoughts
    }

    /// What was held back, when no more text comes. Cut inside the reasoning, all of it is
    /// reasoning (requirement 21).
    pub fn finish(&mut self) -> Vec<Thought> {
        let held = std::mem::take(&mut self.held);
        let thought = match self.state {
            State::Inside { .. } => Thought::Reasoning(held.trim_end_matches('\n').to_owned()),
            State::Start | State::Closed | State::Answer => Thought::Text(held),
        };
        Vec::from_iter(thought.not_empty())
    }

    /// Makes one decision about the held text; `false` when it takes more text to decide.
    fn advance(&mut self, thoughts: &mut Vec<Thought>) -> bool {
        match self.state {
            State::Start => self.start(),
            State::Inside { fresh } => self.inside(fresh, thoughts),
            State::Closed => {
                let blank = self.held.len() - self.held.trim_start_matches('\n').len();
                self.held.drain(..blank);
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Answer;
                true
            }
            State::Answer => {
                let text = Thought::Text(std::mem::take(&mut self.held));
                thoughts.extend(text.not_empty());
                false
            }
        }
    }

    fn start(&mut self) -> bool {
        let said = self.held.trim_start();
        let (open, close) = (&self.markers.open, &self.markers.close);
        if let Some(rest) = said.strip_prefix(open.as_str()) {
            self.state = State::Inside { fresh: true };
            self.held = rest.to_owned();
        } else if let Some(rest) = said.strip_prefix(close.as_str()) {
            // Models close what the prompt has closed for them already.
            self.state = State::Closed;
            self.held = rest.to_owned();
        } else if open.starts_with(said) || close.starts_with(said) {
            return false;
        } else {
            self.state = State::Answer;
        }
        true
    }

    fn inside(&mut self, fresh: bool, thoughts: &mut Vec<Thought>) -> bool {
        if fresh {
            let blank = self.held.len() - self.held.trim_start_matches('\n').len();
            self.held.drain(..blank);
        }
        let close = self.markers.close.as_str();
        let found = self.held.find(close);
        let end = found.unwrap_or_else(|| self.held.len() - partial_suffix(&self.held, close));
        let reasoning = self.held[..end].trim_end_matches('\n').to_owned();
        let taken = match found {
            Some(at) => at + close.len(),
            None => reasoning.len(),
        };
        self.held.drain(..taken);
        self.state = match found {
            Some(_) => State::Closed,
            None => State::Inside { fresh: fresh && reasoning.is_empty() },
        };
        thoughts.extend(Thought::Reasoning(reasoning).not_empty());
        found.is_some()
    }
}

impl Thought {
    fn not_empty(self) -> Option<Self> {
        let (Self::Reasoning(text) | Self::Text(text)) = &self;
        (!text.is_empty()).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reasoning and text, each joined.
    fn run(open: bool, pieces: &[&str]) -> (String, String) {
        let mut splitter = ReasoningSplitter::new(ReasoningMarkers::default(), open);
        let mut thoughts: Vec<Thought> =
            pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        thoughts.extend(splitter.finish());
        let (mut reasoning, mut said) = (String::new(), String::new());
        for thought in thoughts {
            match thought {
                Thought::Reasoning(text) => reasoning.push_str(&text),
                Thought::Text(text) => said.push_str(&text),
            }
        }
        (reasoning, said)
    }

    fn check(open: bool, pieces: &[&str], reasoning: &str, said: &str) {
        assert_eq!(run(open, pieces), (reasoning.to_owned(), said.to_owned()), "{pieces:?}");
    }

    // Requirements 21 and 22
    #[test]
    fn reasoning_is_told_from_the_answer() {
        check(false, &["\n<thi", "nk>\n\na\n", "\nb\n</think>\n\n c\n"], "a\n\nb", " c\n");
        check(true, &["a</think>b</think>"], "a", "b</think>");
        check(true, &["a\n", "<", "/think", "\n"], "a\n</think", "");
        check(false, &["<think>\n\n</think>\n\nb"], "", "b");
        check(false, &["  plain <think>x</think>"], "", "  plain <think>x</think>");
        check(false, &[" \n"], "", " \n");
    }

    proptest! {
        // Equality E8
        #[test]
        fn any_split_is_told_apart_alike(
            pieces in prop::collection::vec("(<think>|</think>|\n|a|é|<|</|thi|nk>){0,3}", 0..8),
            open: bool,
        ) {
            let split: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(open, &split), run(open, &[&pieces.concat()]));
        }
    }
}
