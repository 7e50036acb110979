//! Ends a part of an answer that has used up its limit.

use crate::contract::PartLimit;

/// Tokens of an answer among which the one that begins its part has to be: models put white space
/// before it at most.
const OPENING_TOKENS: u32 = 4;

/// How far an answer is with the part that is limited.
#[derive(Clone, Debug)]
pub struct PartCount {
    limit: PartLimit,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The part may still begin; so many tokens came before it.
    Before(u32),
    /// In the part, with so many of its tokens.
    Inside(u32),
    /// This place of the ending is next.
    Ending(usize),
    /// The part is over, or never began.
    Over,
}

impl PartCount {
    /// An answer that has not begun.
    pub fn new(limit: PartLimit) -> Self {
        let state = if limit.open.is_some() { State::Before(0) } else { State::Inside(0) };
        let mut count = Self { limit, state };
        count.look();
        count
    }

    /// The only token that may come next, if the limit is reached.
    pub fn forced(&self) -> Option<u32> {
        match self.state {
            State::Ending(at) => self.limit.ending.get(at).copied(),
            _ => None,
        }
    }

    /// Books a token of the answer.
    pub fn accept(&mut self, token: u32) {
        self.state = match self.state {
            State::Before(_) if self.limit.open == Some(token) => State::Inside(1),
            State::Before(count) if count + 1 < OPENING_TOKENS => State::Before(count + 1),
            State::Inside(_) if token == self.limit.close => State::Over,
            State::Inside(count) => State::Inside(count + 1),
            State::Ending(at) if at + 1 < self.limit.ending.len() => State::Ending(at + 1),
            State::Before(_) | State::Ending(_) | State::Over => State::Over,
        };
        self.look();
    }

    /// Begins the ending when there is room for nothing else.
    fn look(&mut self) {
        let State::Inside(count) = self.state else { return };
        let ending = &self.limit.ending;
        let to_close = ending.iter().position(|token| *token == self.limit.close);
        let room = to_close.map_or(0, |at| at as u32 + 1);
        if count.saturating_add(room) >= self.limit.most {
            self.state = if ending.is_empty() { State::Over } else { State::Ending(0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: u32 = 1;
    const CLOSE: u32 = 2;

    /// What comes of an answer that says 9 for ever when it is free to, and how long its part is.
    fn run(open: Option<u32>, most: u32, said: &[u32]) -> Vec<u32> {
        let limit = PartLimit { open, close: CLOSE, most, ending: vec![7, CLOSE, 8] };
        let mut count = PartCount::new(limit);
        let said = said.iter().copied().chain(std::iter::repeat(9));
        let mut answer = Vec::new();
        for token in said.take(10) {
            let token = count.forced().unwrap_or(token);
            count.accept(token);
            answer.push(token);
        }
        answer
    }

    #[test]
    fn a_part_ends_with_its_last_token_of_the_limit() {
        assert_eq!(run(None, 5, &[]), [9, 9, 9, 7, CLOSE, 8, 9, 9, 9, 9]);
        assert_eq!(run(Some(OPEN), 5, &[OPEN]), [OPEN, 9, 9, 7, CLOSE, 8, 9, 9, 9, 9]);
        assert_eq!(run(Some(OPEN), 4, &[8, OPEN]), [8, OPEN, 9, 7, CLOSE, 8, 9, 9, 9, 9]);
        for most in 0..3 {
            assert_eq!(run(None, most, &[]), [7, CLOSE, 8, 9, 9, 9, 9, 9, 9, 9], "{most}");
        }
    }

    #[test]
    fn a_part_that_ends_by_itself_or_never_begins_is_left_alone() {
        assert_eq!(run(None, 5, &[9, CLOSE]), [9, CLOSE, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(run(Some(OPEN), 2, &[]), [9; 10]);
        // Too late to be the beginning of anything.
        assert_eq!(run(Some(OPEN), 2, &[9, 9, 9, 9, OPEN])[4..6], [OPEN, 9]);
    }
}
