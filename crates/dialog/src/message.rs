//! Messages of a conversation, as the caller meant them.

/// Who speaks. A dialect's `developer` is a [`Role::System`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// JSON kept as its text, so that key order and number spelling reach the template unchanged.
///
/// Whoever makes one has checked that it parses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(pub String);

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Plain text.
    Text(String),
    /// An image; text-only models refuse it.
    Image {
        /// Where it is, or a `data:` URL that holds it.
        url: String,
        /// Its place in the caller's request, for the refusal.
        path: String,
    },
    /// A tool on offer, by its name: the model is told here what it is, and not before.
    Tool(String),
}

/// A call that the assistant made earlier in the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The caller's id, which a later tool message refers to.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// An object, never a string that holds one.
    pub arguments: Json,
}

/// One turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; empty for an assistant turn that only calls tools.
    pub content: Vec<Part>,
    /// The assistant's reasoning of that turn, when the caller sends it back.
    pub reasoning: Option<String>,
    /// The calls of an assistant turn.
    pub tool_calls: Vec<ToolCall>,
    /// For [`Role::Tool`]: the call that this answers.
    pub tool_call_id: Option<String>,
    /// For [`Role::Tool`]: the call failed, and the content says how.
    pub is_error: bool,
}

impl Message {
    /// A turn that is one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![Part::Text(text.into())],
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            is_error: false,
        }
    }

    /// All text parts, joined as they stand.
    pub fn joined_text(&self) -> String {
        let texts = self.content.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image { .. } | Part::Tool(_) => None,
        });
        texts.collect()
    }
}
