//! A long conversation that nobody has had before.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Options;
use crate::client::Client;

/// Turns of the conversation before the question that is measured.
const EARLIER: usize = 6;

/// Messages, the last of which is the user's.
pub(super) struct Conversation {
    messages: Vec<Value>,
}

impl Conversation {
    /// Some turns of `words` words altogether, and a question.
    pub(super) fn new(words: usize) -> Self {
        // The first words differ from those of every other conversation.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let system = format!("{:09} is the number of this conversation.", since.subsec_nanos());
        let mut messages = vec![json!({"role": "system", "content": system})];
        let each = words / EARLIER;
        for turn in 0..EARLIER {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            let text: Vec<String> = (0..each).map(|at| word(turn * each + at)).collect();
            messages.push(json!({"role": role, "content": text.join(" ")}));
        }
        messages.push(json!({"role": "user", "content": "What do you make of this?"}));
        Self { messages }
    }

    /// The model's answer and another question.
    pub(super) fn go_on(&mut self, answer: &str) {
        self.messages.push(json!({"role": "assistant", "content": answer}));
        self.messages.push(json!({"role": "user", "content": "And what else?"}));
    }

    pub(super) fn messages(&self) -> &[Value] {
        &self.messages
    }
}

/// Different everywhere, so that no two places of a conversation look the same.
fn word(at: usize) -> String {
    let letter = |place: usize| char::from(b'a' + (at / place % 26) as u8);
    [letter(1), letter(26), letter(676)].iter().collect()
}

/// How many words make a prompt of the wanted length, by the model's own tokenizer.
pub(super) async fn words_for(client: &Client, options: &Options) -> Result<usize> {
    const TRIAL: usize = 600;
    let url = format!("{}/tokenize", options.url.trim_end_matches('/'));
    let count = async |words: usize| -> Result<f64> {
        let messages = Conversation::new(words).messages;
        let body = json!({"model": options.model, "messages": messages});
        let counted = client.post(&url, &body).await?;
        let tokens = counted["count"].as_u64();
        Ok(tokens.with_context(|| format!("{url} told no count of tokens"))? as f64)
    };
    let least = count(0).await?;
    let mut words = TRIAL;
    // Later words may take more tokens than earlier ones: the second look is near the truth.
    for _ in 0..2 {
        let per_word = (count(words).await? - least) / words as f64;
        words = ((f64::from(options.tokens) - least) / per_word).max(EARLIER as f64) as usize;
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_ends_with_the_user_and_repeats_nothing() {
        let mut conversation = Conversation::new(1200);
        conversation.go_on("Nothing.");
        let messages = conversation.messages();
        let role = |message: &Value| message["role"].as_str().unwrap_or_default().to_owned();
        let roles: Vec<_> = messages.iter().map(role).collect();
        assert_eq!(roles[..3], ["system", "user", "assistant"]);
        assert_eq!(roles[roles.len() - 3..], ["user", "assistant", "user"]);
        let words: Vec<_> = (0..1200).map(word).collect();
        let distinct: std::collections::BTreeSet<_> = words.iter().collect();
        assert_eq!(distinct.len(), words.len());
    }
}
