//! The language of an answer: its format, or the calls that it must make.
//!
//! A grammar is text for the engine, in the dialect of the `llguidance` crate. What a model thinks
//! before it answers is free; the grammar says where that ends.

mod calls;
mod schema;

use dialog::{AnswerFormat, GenerateRequest, Json, Prompt, Reasoning, ToolChoice};
use serde_json::{Value, json};

use crate::prompt::told;
use crate::{FormatPart, Prepared, TextError, TextModel};
use schema::{Wrong, compilable};

/// Lines of a grammar. Rule names are lower-case, token names upper-case.
struct Rules {
    text: String,
}

impl Rules {
    fn new() -> Self {
        Self { text: String::new() }
    }

    fn add(&mut self, name: &str, body: &str) {
        self.text.push_str(&format!("{name}: {body}\n"));
    }
}

impl TextModel {
    /// The grammar that the answer to a request must follow; `None` leaves it free.
    ///
    /// # Errors
    ///
    /// [`TextError::Format`] for a form that cannot be enforced.
    pub fn grammar(
        &self,
        request: &GenerateRequest,
        prepared: &Prepared,
    ) -> Result<Option<String>, TextError> {
        let mut rules = Rules::new();
        let calls = calls::body(self, request, &mut rules)?;
        let body = match (calls, &request.format) {
            (None, None) => return Ok(None),
            (Some(calls), None) => calls.rule,
            (Some(calls), Some(_)) if calls.is_required => calls.rule,
            (calls, Some(format)) => {
                let answer = format_rule(format)?;
                match calls {
                    Some(calls) => format!("{} | {answer}", calls.in_place_of_an_answer),
                    None => answer,
                }
            }
        };
        if request.ignore_eos {
            let part = match request.format {
                Some(_) => FormatPart::Answer,
                None => FormatPart::Tools,
            };
            let reason = "cannot be enforced together with ignore_eos".to_owned();
            return Err(TextError::Format { part, path: String::new(), reason });
        }
        rules.add("body", &body);
        let thoughts = self.thoughts(request, prepared, &mut rules);
        rules.add("start", &format!("{thoughts} body"));
        Ok(Some(rules.text))
    }

    /// What may stand before the answer: reasoning that the prompt has opened, or that the model
    /// opens itself where nobody has forbidden it.
    fn thoughts(
        &self,
        request: &GenerateRequest,
        prepared: &Prepared,
        rules: &mut Rules,
    ) -> &'static str {
        let is_chat = matches!(request.prompt, Prompt::Chat(_));
        let may_open = is_chat
            && request.reasoning != Reasoning::Off
            && self.marker_token(&self.reasoning.open).is_some();
        if !prepared.reasoning_open && !may_open {
            return "";
        }
        let inside = self.until(&self.reasoning.close, "thought", rules);
        rules.add("inside", &format!("{inside} /\\n{{0,2}}/"));
        if prepared.reasoning_open {
            return "inside";
        }
        rules.add("thoughts", &format!("{} inside", self.marker(&self.reasoning.open)));
        "thoughts?"
    }

    /// A marker as a grammar names it: the token where it is one, else its letters.
    fn marker(&self, marker: &str) -> String {
        self.marker_token(marker).map_or_else(|| literal(marker), |id| format!("<[{id}]>"))
    }

    pub(crate) fn marker_token(&self, marker: &str) -> Option<u32> {
        let id = self.tokenizer.id(marker)?;
        self.tokenizer.added().any(|added| added == id).then_some(id)
    }

    /// Any text up to the marker, and the marker. Where the marker is a token, its letters cannot
    /// stand in the text: a reader of the words could not tell them apart.
    fn until(&self, marker: &str, name: &str, rules: &mut Rules) -> String {
        let escaped = regex_escape(marker);
        match self.marker_token(marker) {
            Some(id) => {
                let upper = name.to_uppercase();
                rules.add(&upper, &format!("/(?s:.*)/ & ~/(?s:.*){escaped}(?s:.*)/"));
                format!("{upper} <[{id}]>")
            }
            None => {
                rules.add(&format!("{name}[lazy]"), &format!("/(?s:.*){escaped}/"));
                name.to_owned()
            }
        }
    }
}

fn format_rule(format: &AnswerFormat) -> Result<String, TextError> {
    let refuse =
        |Wrong { path, reason }| TextError::Format { part: FormatPart::Answer, path, reason };
    let schema = match format {
        AnswerFormat::JsonObject => json!({"type": "object"}),
        AnswerFormat::JsonSchema(schema) => parsed(schema),
        AnswerFormat::Regex(pattern) => return regex_rule(pattern).map_err(refuse),
        AnswerFormat::OneOf(texts) => {
            return Ok(texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(" | "));
        }
    };
    Ok(json_rule(&compilable(&schema).map_err(refuse)?))
}

/// A caller's regular expression between the slashes of a grammar. What is wrong with the
/// expression itself its compiler says.
fn regex_rule(pattern: &str) -> Result<String, Wrong> {
    let wrong = |reason: &str| Wrong { path: String::new(), reason: reason.to_owned() };
    // The compiler takes a group of this name for a look-ahead.
    if pattern.contains("(?P<stop>") || pattern.contains("(?<stop>") {
        return Err(wrong("a group cannot have the name `stop`"));
    }
    let mut rule = String::from("/");
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '/' => rule.push_str("\\/"),
            '\\' => match letters.next() {
                Some('\n') => return Err(wrong("a backslash before a line break means nothing")),
                Some(escaped) => rule.extend(['\\', escaped]),
                None => return Err(wrong("ends with a backslash, which escapes nothing")),
            },
            letter => rule.push(letter),
        }
    }
    rule.push('/');
    Ok(rule)
}

/// Whoever made it has checked that it parses.
fn parsed(json: &Json) -> Value {
    serde_json::from_str(&json.0).unwrap_or_default()
}

fn json_rule(schema: &Value) -> String {
    format!("%json {schema}")
}

/// A text as a grammar's literal.
fn literal(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A text as a part of a regular expression between slashes.
fn regex_escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            letter if letter.is_ascii_alphanumeric() || !letter.is_ascii() => escaped.push(letter),
            // A backslash makes more than a letter of some of them.
            letter => escaped.push_str(&format!("\\x{:02x}", u32::from(letter))),
        }
    }
    escaped
}

/// Whether a request wants calls enforced.
fn enforces_calls(request: &GenerateRequest) -> bool {
    match request.tool_choice {
        ToolChoice::Required | ToolChoice::Named(_) => true,
        ToolChoice::Auto => told(request).any(|tool| tool.strict),
        ToolChoice::None => false,
    }
}
