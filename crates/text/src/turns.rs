//! Which message of a request a token of its prompt belongs to.
//!
//! Templates move system turns, join tool results and leave reasoning out, so a turn is found by
//! what it says: contents are looked for in the rendered prompt, one after the other. A message
//! begins behind the special token that ended the one before it.

use dialog::{Message, Role};

use crate::Tokenizer;

/// Searches in vain after which the template is taken to rewrite what it is given: each of them
/// reads the rest of the prompt.
const MOST_MISSES: usize = 16;

/// Where a message begins in a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its first token.
    pub start: u32,
    /// Its place in the request, from 0.
    pub message: u32,
    /// Who speaks.
    pub role: Role,
}

/// The turn that the token at `position` belongs to.
pub fn turn_at(turns: &[Turn], position: u32) -> Option<Turn> {
    let after = turns.partition_point(|turn| turn.start <= position);
    after.checked_sub(1).map(|at| turns[at])
}

/// The messages that can be found in a prompt, in its order. `boundaries` are the positions past
/// its special tokens.
pub(crate) fn turns(
    messages: &[Message],
    tokens: &[u32],
    boundaries: &[u32],
    tokenizer: &Tokenizer,
) -> Vec<Turn> {
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(tokens.len());
    for token in tokens {
        bytes.extend_from_slice(tokenizer.token_bytes(*token));
        ends.push(bytes.len());
    }
    let Ok(prompt) = String::from_utf8(bytes) else { return Vec::new() };
    let is_system = |(_, message): &(usize, &Message)| message.role == Role::System;
    let (system, others): (Vec<_>, Vec<_>) = messages.iter().enumerate().partition(is_system);
    let (mut turns, mut end, mut misses) = (Vec::new(), 0, 0);
    for (at, message) in system.into_iter().chain(others) {
        let said = said(message);
        if said.is_empty() || misses == MOST_MISSES {
            continue;
        }
        // Results of tools may share a turn; whoever else speaks begins a new one.
        let past = boundaries.partition_point(|past| ends[*past as usize - 1] <= end);
        let past = boundaries.get(past).copied().filter(|_| !turns.is_empty());
        let from = match past {
            Some(past) if message.role != Role::Tool => ends[past as usize - 1],
            _ => end,
        };
        let Some(found) = prompt[from..].find(&said) else {
            misses += 1;
            continue;
        };
        let begin = from + found;
        end = begin + said.len();
        let start = match past.filter(|past| ends[*past as usize - 1] <= begin) {
            _ if turns.is_empty() => 0,
            Some(past) => past,
            None => ends.partition_point(|end| *end <= begin) as u32,
        };
        turns.push(Turn { start, message: at as u32, role: message.role });
    }
    turns
}

/// What shows that a message is there: its text, or the function that it calls.
fn said(message: &Message) -> String {
    let text = message.joined_text();
    match (text.trim(), message.tool_calls.first()) {
        ("", Some(call)) => call.name.clone(),
        (text, _) => text.to_owned(),
    }
}
