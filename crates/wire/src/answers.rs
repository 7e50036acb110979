//! The answers of one request, in dialects that have a place for several.

use dialog::{Event, Timings, Usage};

use crate::ErrorBody;
use crate::answer::{Answer, End};
use crate::usage::add_choice;

/// All answers of a request; they end together.
pub(crate) struct Answers {
    answers: Vec<Answer>,
    has_failed: bool,
}

/// How all of them ended.
pub(crate) struct Ends {
    /// In their order.
    pub(crate) ends: Vec<End>,
    /// Of all of them; their prompt counts once.
    pub(crate) usage: Usage,
    /// Of the first, which read the prompt.
    pub(crate) timings: Timings,
}

impl Answers {
    /// So many, which have not begun.
    pub(crate) fn new(count: u32) -> Self {
        Self { answers: (0..count).map(|_| Answer::default()).collect(), has_failed: false }
    }

    /// An answer that goes on: `None` once it has ended, or all of them have with a failure.
    pub(crate) fn open(&mut self, choice: u32) -> Option<&mut Answer> {
        let answer = self.answers.get_mut(choice as usize)?;
        (!self.has_failed && !answer.ended()).then_some(answer)
    }

    /// Takes the next event of one of them.
    pub(crate) fn take(&mut self, choice: u32, event: &Event) {
        if let Some(answer) = self.answers.get_mut(choice as usize) {
            answer.take(event);
        }
    }

    /// Nothing comes any more.
    pub(crate) fn fail(&mut self) {
        self.has_failed = true;
    }

    /// Whether nothing comes any more.
    pub(crate) fn ended(&self) -> bool {
        self.has_failed || self.answers.iter().all(Answer::ended)
    }

    /// In their order, with what each has said.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter()
    }

    /// How all of them ended, or the first failure.
    pub(crate) fn ends(&self) -> Result<Ends, ErrorBody> {
        let ends: Vec<End> = self.answers.iter().map(Answer::end).collect::<Result<_, _>>()?;
        let (mut usage, timings) = (Usage::default(), ends.first().map(|end| end.timings));
        for (index, end) in (0..).zip(&ends) {
            add_choice(&mut usage, index, &end.usage);
        }
        Ok(Ends { ends, usage, timings: timings.unwrap_or_default() })
    }
}
