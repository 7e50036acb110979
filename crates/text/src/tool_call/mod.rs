//! Tool calls in what a model says.
//!
//! A call stands between `<tool_call>` and `</tool_call>`, as JSON or as Qwen's XML. It is passed
//! on when its block is complete and makes sense; a block that is cut short or makes none stays
//! visible as the text it is (requirements 14 and 16). White space next to a call is not shown.

mod json;
#[cfg(test)]
mod tests;
mod xml;

use dialog::ToolSpec;

use crate::stop::partial_suffix;

pub(crate) const OPEN: &str = "<tool_call>";
pub(crate) const CLOSE: &str = "</tool_call>";

pub(crate) use xml::takes_text;

/// How a model writes its calls between the markers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallForm {
    /// `{"name": "...", "arguments": {...}}`.
    #[default]
    Json,
    /// `<function=NAME><parameter=KEY>VALUE</parameter></function>`.
    Xml,
}

impl CallForm {
    /// The form that a chat template teaches.
    pub(crate) fn of_template(source: &str) -> Self {
        if source.contains(xml::FUNCTION) { Self::Xml } else { Self::Json }
    }
}

/// A call that a model made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedCall {
    /// The function's name.
    pub name: String,
    /// The text of a JSON object.
    pub arguments: String,
}

/// A piece of what a model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Words.
    Text(String),
    /// A complete call.
    Call(ParsedCall),
}

/// Why a block between the markers is no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoCall {
    /// The closing marker stands inside a value, so that the block goes on.
    GoesOn,
    /// The block makes no sense.
    Broken,
}

/// Finds calls as the words come.
#[derive(Clone, Debug)]
pub struct ToolCallParser {
    tools: Vec<ToolSpec>,
    /// White space before the opening marker, when inside a block.
    inside: Option<String>,
    held: String,
    /// No closing marker that ends the block begins before this byte of `held`.
    searched: usize,
    called: bool,
}

impl ToolCallParser {
    /// A parser; without tools on offer everything is text.
    pub fn new(tools: Vec<ToolSpec>) -> Self {
        Self { tools, inside: None, held: String::new(), searched: 0, called: false }
    }

    /// Whether a call has been found.
    pub fn called(&self) -> bool {
        self.called
    }

    /// Whether what was said last may belong to a call.
    pub(crate) fn in_call(&self) -> bool {
        self.inside.is_some()
    }

    /// Takes more text and gives what can be told apart.
    pub fn push(&mut self, text: &str) -> Vec<Said> {
        if self.tools.is_empty() {
            return Vec::from_iter(said(text.to_owned()));
        }
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.advance(&mut pieces) {}
        pieces
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> Vec<Said> {
        let held = std::mem::take(&mut self.held);
        let text = match self.inside.take() {
            Some(space) => format!("{space}{OPEN}{held}"),
            None if self.called && held.trim().is_empty() => String::new(),
            None => held,
        };
        Vec::from_iter(said(text))
    }

    /// Makes one decision about the held text; `false` when it takes more text to decide.
    fn advance(&mut self, pieces: &mut Vec<Said>) -> bool {
        match self.inside.take() {
            Some(space) => self.in_block(space, pieces),
            None => self.outside(pieces),
        }
    }

    fn outside(&mut self, pieces: &mut Vec<Said>) -> bool {
        let found = self.held.find(OPEN);
        let end = found.unwrap_or_else(|| self.held.len() - partial_suffix(&self.held, OPEN));
        let shown = self.held[..end].trim_end().len();
        let text: String = self.held.drain(..shown).collect();
        pieces.extend(said(text));
        if found.is_some() {
            let space: String = self.held.drain(..end - shown).collect();
            self.held.drain(..OPEN.len());
            self.inside = Some(space);
            self.searched = 0;
        }
        found.is_some()
    }

    fn in_block(&mut self, space: String, pieces: &mut Vec<Said>) -> bool {
        let Some(found) = self.held[self.searched..].find(CLOSE) else {
            let unsure = self.held.len().saturating_sub(CLOSE.len() - 1);
            self.searched = self.searched.max(self.held.floor_char_boundary(unsure));
            self.inside = Some(space);
            return false;
        };
        let end = self.searched + found;
        let after = end + CLOSE.len();
        match parse(&self.held[..end], &self.tools) {
            Ok(call) => {
                self.called = true;
                self.held.drain(..after);
                pieces.push(Said::Call(call));
            }
            Err(NoCall::GoesOn) => {
                self.searched = after;
                self.inside = Some(space);
            }
            Err(NoCall::Broken) => {
                let block: String = self.held.drain(..after).collect();
                pieces.extend(said(format!("{space}{OPEN}{block}")));
            }
        }
        true
    }
}

fn parse(block: &str, tools: &[ToolSpec]) -> Result<ParsedCall, NoCall> {
    let block = block.trim();
    if block.starts_with(xml::FUNCTION) { xml::parse(block, tools) } else { json::parse(block) }
}

fn said(text: String) -> Option<Said> {
    (!text.is_empty()).then_some(Said::Text(text))
}
