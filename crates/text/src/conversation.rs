//! A conversation in the shape that Hugging Face chat templates read.

use dialog::{Json, Message, Part, Role, ToolSpec};
use serde_json::{Map, Value, json};

use crate::{TextError, python_json};

/// Everything of a request that reaches the template as data.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conversation {
    /// Objects with `role`, `content` and what else a turn has.
    pub(crate) messages: Vec<Value>,
    /// `{"type": "function", "function": {...}}` each.
    pub(crate) tools: Vec<Value>,
    /// Extra variables by name.
    pub(crate) arguments: Map<String, Value>,
}

impl Conversation {
    /// Brings messages and tools into their shape; system turns become one, at the front. Tools
    /// that are deferred stand where a message names them, as the line of JSON that most templates
    /// have for a tool, so that one that joins late leaves what was said before as it was.
    ///
    /// A template that `tells_errors` knows the field `is_error` of a tool's result. For any other
    /// the words themselves say that a call failed, since the model would not learn it otherwise.
    pub(crate) fn new(
        messages: &[Message],
        tools: &[ToolSpec],
        arguments: Option<&Json>,
        tells_errors: bool,
    ) -> Result<Self, TextError> {
        let system: Vec<String> = messages
            .iter()
            .filter(|message| message.role == Role::System)
            .map(Message::joined_text)
            .collect();
        // Requirement 124: agents send several, and not only first; templates know one, first.
        let first =
            (!system.is_empty()).then(|| json!({"role": "system", "content": system.join("\n\n")}));
        let others = messages.iter().filter(|message| message.role != Role::System);
        let others = others.map(|message| turn(message, tools, tells_errors));
        let arguments = match arguments.map(parsed) {
            None => Map::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(TextError::RenderFailed("arguments must be an object".into())),
        };
        Ok(Self {
            messages: first.into_iter().chain(others).collect(),
            tools: tools.iter().filter(|tool| !tool.is_deferred).map(tool).collect(),
            arguments,
        })
    }

    /// Every string of it, keys included.
    pub(crate) fn each_string(&self, visit: &mut impl FnMut(&str)) {
        let values = self.messages.iter().chain(&self.tools).chain(self.arguments.values());
        values.for_each(|value| each_string(value, visit));
        self.arguments.keys().for_each(|key| visit(key));
    }

    /// Rewrites every string, keys included.
    pub(crate) fn map_strings(self, rewrite: &impl Fn(String) -> String) -> Self {
        let all =
            |values: Vec<Value>| values.into_iter().map(|v| map_strings(v, rewrite)).collect();
        let arguments = self.arguments.into_iter();
        Self {
            messages: all(self.messages),
            tools: all(self.tools),
            arguments: arguments.map(|(key, v)| (rewrite(key), map_strings(v, rewrite))).collect(),
        }
    }
}

fn turn(message: &Message, tools: &[ToolSpec], tells_errors: bool) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut turn = Map::new();
    turn.insert("role".to_owned(), role.into());
    let text = words(&message.content, tools);
    let text = match message.is_error && !tells_errors {
        true => as_error(text),
        false => text,
    };
    turn.insert("content".to_owned(), text.into());
    if message.is_error {
        turn.insert("is_error".to_owned(), true.into());
    }
    if let Some(reasoning) = &message.reasoning {
        turn.insert("reasoning_content".to_owned(), reasoning.as_str().into());
    }
    if !message.tool_calls.is_empty() {
        let call = |call: &dialog::ToolCall| {
            let function = json!({"name": call.name, "arguments": parsed(&call.arguments)});
            json!({"type": "function", "id": call.id, "function": function})
        };
        let calls = message.tool_calls.iter().map(call).collect();
        turn.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    if let Some(id) = &message.tool_call_id {
        turn.insert("tool_call_id".to_owned(), id.as_str().into());
    }
    Value::Object(turn)
}

/// The text parts as they stand, and the tools that are told among them.
fn words(parts: &[Part], tools: &[ToolSpec]) -> String {
    let mut words = String::new();
    let mut in_list = false;
    for part in parts {
        let told = match part {
            Part::Tool(name) => tools.iter().find(|tool| tool.name == *name),
            Part::Text(_) | Part::Image { .. } => None,
        };
        match (in_list, told) {
            (false, Some(_)) if words.is_empty() => words.push_str("<tools>\n"),
            (false, Some(_)) => words.push_str("\n<tools>\n"),
            (true, None) => words.push_str("</tools>\n"),
            _ => {}
        }
        in_list = told.is_some();
        match (told, part) {
            (Some(told), _) => {
                words.push_str(&python_json::line(&tool(told)));
                words.push('\n');
            }
            (None, Part::Text(text)) => words.push_str(text),
            (None, _) => {}
        }
    }
    if in_list {
        words.push_str("</tools>");
    }
    words
}

/// Tools that fail mostly say so themselves.
fn as_error(text: String) -> String {
    let begins = text.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("error"));
    if begins { text } else { format!("Error: {text}") }
}

fn tool(tool: &ToolSpec) -> Value {
    let mut function = Map::new();
    function.insert("name".to_owned(), tool.name.as_str().into());
    if let Some(description) = &tool.description {
        function.insert("description".to_owned(), description.as_str().into());
    }
    if let Some(parameters) = &tool.parameters {
        function.insert("parameters".to_owned(), parsed(parameters));
    }
    json!({"type": "function", "function": function})
}

/// Whoever made the [`Json`] has checked it; text that is none stays the string it is.
fn parsed(json: &Json) -> Value {
    serde_json::from_str(&json.0).unwrap_or_else(|_| Value::String(json.0.clone()))
}

fn each_string(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| each_string(item, visit)),
        Value::Object(fields) => {
            for (key, value) in fields {
                visit(key);
                each_string(value, visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn map_strings(value: Value, rewrite: &impl Fn(String) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(rewrite(text)),
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| map_strings(item, rewrite)).collect())
        }
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let mapped = fields.map(|(key, value)| (rewrite(key), map_strings(value, rewrite)));
            Value::Object(mapped.collect())
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}
