//! The held-out set's lines.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// One line of the set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// Names it in the list of wrong answers.
    pub(crate) id: String,
    /// What it tests; the table has a row for each.
    pub(crate) kind: String,
    /// As in a chat request.
    messages: Value,
    /// As in a chat request.
    tools: Option<Value>,
    /// As in a chat request.
    chat_template_kwargs: Option<Value>,
    /// As in a chat request.
    max_tokens: u32,
    /// What is right.
    pub(crate) expect: Expect,
}

/// What a right answer is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Expect {
    /// One of these texts, but for the space around it.
    Text(Vec<String>),
    /// A text that is this value as JSON.
    Json(Value),
    /// One call of this tool with these arguments.
    ToolCall {
        /// The tool.
        name: String,
        /// Its arguments.
        arguments: Value,
    },
}

impl Question {
    /// The chat request, greedy so that the score can be repeated.
    pub(crate) fn body(&self, model: &str) -> Value {
        let mut body = json!({
            "model": model,
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": 0,
        });
        if let Some(tools) = &self.tools {
            body["tools"] = tools.clone();
        }
        if let Some(arguments) = &self.chat_template_kwargs {
            body["chat_template_kwargs"] = arguments.clone();
        }
        body
    }
}

/// Reads a whole set; a line that is no question is an error, since it would be a missing one.
pub(crate) fn read(path: &Path) -> Result<Vec<Question>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}:{} is no question", path.display(), index + 1))
    };
    let questions = lines.map(parse).collect::<Result<Vec<_>>>()?;
    if questions.is_empty() {
        bail!("{} holds no question", path.display());
    }
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn set(text: &str) -> Result<Vec<Question>> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("written");
        read(file.path())
    }

    #[test]
    fn a_line_becomes_a_greedy_request() {
        let line = r#"{"id":"a","kind":"k","messages":[{"role":"user","content":"x"}],
            "tools":[{"type":"function"}],"max_tokens":7,
            "expect":{"tool_call":{"name":"f","arguments":{}}}}"#
            .replace('\n', " ");
        let questions = set(&format!("{line}\n\n")).expect("one question");
        let expected = json!({
            "model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 7,
            "temperature": 0, "tools": [{"type": "function"}],
        });
        assert_eq!(questions[0].body("m"), expected);
    }

    #[test]
    fn a_broken_line_is_named() {
        let good = r#"{"id":"a","kind":"k","messages":[],"max_tokens":1,"expect":{"text":["x"]}}"#;
        let error = |text: &str| format!("{:#}", set(text).expect_err("broken"));
        assert!(error(&format!("{good}\n{{}}\n")).contains(":2 is no question"));
        assert!(error(&good.replace("text", "texts")).contains("texts"));
        assert!(error("\n").contains("no question"));
    }
}
