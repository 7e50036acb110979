//! Keeps what callers say from becoming control tokens.
//!
//! A template renders the caller's words and its own control tokens into one string. Before it
//! does, every spelling of a control token in the caller's strings is broken up with a sentinel: a
//! private-use character that occurs nowhere in the conversation. The tokenizer finds control
//! tokens first and removes the sentinel then, so that `<|im_start|>` in a message becomes the
//! plain text that it is, byte for byte, and never a turn.

use crate::conversation::Conversation;
use crate::{TextError, Tokenizer};

const FIRST: u32 = 0xf_0000;
const LAST: u32 = 0xf_fffd;

/// The conversation without spellings of control tokens, and the sentinel that breaks them up.
pub(crate) fn guard(
    conversation: Conversation,
    tokenizer: &Tokenizer,
) -> Result<(Conversation, Option<char>), TextError> {
    let mut found = false;
    conversation.each_string(&mut |text| found = found || tokenizer.spells_control(text));
    if !found {
        return Ok((conversation, None));
    }
    let sentinel = free_sentinel(&conversation)?;
    let guarded = conversation.map_strings(&|text| match tokenizer.spells_control(&text) {
        true => tokenizer.break_control(&text, sentinel),
        false => text,
    });
    Ok((guarded, Some(sentinel)))
}

fn free_sentinel(conversation: &Conversation) -> Result<char, TextError> {
    let mut used = vec![false; (LAST - FIRST + 1) as usize];
    conversation.each_string(&mut |text| {
        for letter in text.chars() {
            if let Some(offset) = u32::from(letter).checked_sub(FIRST)
                && let Some(used) = used.get_mut(offset as usize)
            {
                *used = true;
            }
        }
    });
    let mut candidates = (FIRST..=LAST).zip(&used).filter(|(_, used)| !**used);
    let free = candidates.find_map(|(code, _)| char::from_u32(code));
    free.ok_or(TextError::NoFreeSentinel)
}
