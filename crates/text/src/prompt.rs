//! Request -> prompt tokens.

use dialog::{GenerateRequest, Message, Part, Prompt, Reasoning, ToolChoice, ToolSpec};

use crate::conversation::Conversation;
use crate::guard::guard;
use crate::turns::{Turn, turns};
use crate::{RenderOptions, TextError, TextModel};

/// What the engine continues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// At least one token.
    pub tokens: Vec<u32>,
    /// Whether the prompt ends inside the reasoning, so that the answer begins there.
    pub reasoning_open: bool,
    /// Positions one past each special token: where messages begin and end, and where a later
    /// prompt of the same conversation parts from this one.
    pub boundaries: Vec<u32>,
    /// Where the messages of a chat begin, as far as they can be found.
    pub turns: Vec<Turn>,
}

impl TextModel {
    /// Makes the prompt of a request.
    ///
    /// # Errors
    ///
    /// Why this model cannot be given this prompt.
    pub fn prepare(&self, request: &GenerateRequest) -> Result<Prepared, TextError> {
        let mut prepared = match &request.prompt {
            Prompt::Chat(messages) => self.prepare_chat(messages, request)?,
            Prompt::Text(text) => {
                let tokens = self.tokenizer.encode_rendered(text, None, self.max_prompt_tokens)?;
                Prepared { tokens, ..Prepared::default() }
            }
            Prompt::Tokens(tokens) => {
                let vocab_size = self.tokenizer.vocab_size();
                if let Some(&token) = tokens.iter().find(|token| **token >= vocab_size) {
                    return Err(TextError::UnknownToken { token, vocab_size });
                }
                Prepared { tokens: tokens.clone(), ..Prepared::default() }
            }
        };
        if prepared.tokens.is_empty() {
            return Err(TextError::EmptyPrompt);
        }
        // Requirement 47: not before the special token, whose neighbours merge differently when
        // other text follows, and not further on.
        prepared.boundaries = (1..)
            .zip(&prepared.tokens)
            .filter(|(_, token)| self.tokenizer.is_special(**token))
            .map(|(position, _)| position)
            .collect();
        if let Prompt::Chat(messages) = &request.prompt {
            let Prepared { tokens, boundaries, .. } = &prepared;
            prepared.turns = turns(messages, tokens, boundaries, &self.tokenizer);
        }
        Ok(prepared)
    }

    fn prepare_chat(
        &self,
        messages: &[Message],
        request: &GenerateRequest,
    ) -> Result<Prepared, TextError> {
        let template = self.template.as_ref().ok_or(TextError::NoTemplate)?;
        let mut parts = messages.iter().flat_map(|message| &message.content);
        // Requirement 33: an image left out in silence would be answered with an invention.
        let image = parts.find_map(|part| match part {
            Part::Image { path, .. } => Some(path.clone()),
            Part::Text(_) | Part::Tool(_) => None,
        });
        if let Some(path) = image {
            return Err(TextError::ImageInput { path });
        }
        let options = RenderOptions {
            add_generation_prompt: true,
            enable_thinking: match request.reasoning {
                Reasoning::ModelDefault => None,
                Reasoning::Off => Some(false),
                Reasoning::On => Some(true),
            },
            arguments: None,
        };
        let arguments = request.template_arguments.as_ref();
        let tools = offered(request);
        let conversation = Conversation::new(messages, tools, arguments, template.tells_errors())?;
        let (conversation, sentinel) = guard(conversation, &self.tokenizer)?;
        let mut rendered = template.render_conversation(&conversation, &options)?;
        // Requirement 22
        let mut reasoning_open = rendered.trim_end().ends_with(&self.reasoning.open);
        if reasoning_open && request.reasoning == Reasoning::Off {
            // Requirement 23: a template that opens it whatever it is told.
            let line_break = if rendered.ends_with('\n') { "" } else { "\n" };
            rendered.push_str(&format!("{line_break}\n{}\n\n", self.reasoning.close));
            reasoning_open = false;
        }
        let limit = self.max_prompt_tokens;
        let tokens = self.tokenizer.encode_rendered(&rendered, sentinel, limit)?;
        Ok(Prepared { tokens, reasoning_open, ..Prepared::default() })
    }
}

/// The tools that the model may be shown, and whose calls are looked for in its answer.
pub(crate) fn offered(request: &GenerateRequest) -> &[ToolSpec] {
    match request.tool_choice {
        ToolChoice::None => &[],
        ToolChoice::Auto | ToolChoice::Required | ToolChoice::Named(_) => &request.tools,
    }
}

/// Those of them that it is shown: not the deferred ones that no message tells of.
pub(crate) fn told(request: &GenerateRequest) -> impl Iterator<Item = &ToolSpec> {
    let messages = match &request.prompt {
        Prompt::Chat(messages) => messages.as_slice(),
        Prompt::Text(_) | Prompt::Tokens(_) => &[],
    };
    let is_told = move |tool: &&ToolSpec| {
        let parts = || messages.iter().flat_map(|message| &message.content);
        !tool.is_deferred
            || parts().any(|part| matches!(part, Part::Tool(name) if *name == tool.name))
    };
    offered(request).iter().filter(is_told)
}
