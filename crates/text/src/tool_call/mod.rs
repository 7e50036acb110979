//! Tool calls in what a model says.
//!
//! A call stands between `<tool_call>` and `</tool_call>`, as JSON or as Qwen's XML. It begins when
//! its name is known and its arguments have begun, and they are passed on as they come; held back
//! is only what could still be a marker, or would have to be written in another way (requirement
//! 16). A block that is cut short before that, or makes no sense, stays visible as the text it is
//! (requirement 14). White space next to a call is not shown.

mod arguments;
mod coerce;
mod json;
#[cfg(test)]
mod tests;
mod xml;

use dialog::ToolSpec;

use crate::stop::partial_suffix;
use arguments::{Arguments, End};
use coerce::SchemaOfArguments;
use json::{Beginning, NoCall};
use xml::{Parameters, Progress};

pub(crate) const OPEN: &str = "<tool_call>";
pub(crate) const CLOSE: &str = "</tool_call>";

pub(crate) use coerce::takes_text;

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

/// A piece of what a model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Words.
    Text(String),
    /// A call of this function begins.
    Call(String),
    /// More of its arguments, as JSON text.
    Arguments(String),
    /// Its arguments are whole.
    Called,
}

/// Finds calls as the words come.
#[derive(Clone, Debug)]
pub struct ToolCallParser {
    tools: Vec<ToolSpec>,
    state: State,
    held: String,
    called: bool,
}

/// Where the held text begins.
#[derive(Clone, Debug)]
enum State {
    /// Outside of all blocks.
    Outside,
    /// Behind an opening marker, which had this white space before it. No closing marker that ends
    /// the block begins before byte `searched`.
    Block { space: String, searched: usize },
    /// In the arguments of a call in JSON.
    Json(Arguments),
    /// In the parameters of a call in XML.
    Xml(Parameters),
    /// Behind the arguments; `braced` once the call's own brace is closed, if it has one.
    Behind { braced: bool },
}

impl ToolCallParser {
    /// A parser; without tools on offer everything is text.
    pub fn new(tools: Vec<ToolSpec>) -> Self {
        Self { tools, state: State::Outside, held: String::new(), called: false }
    }

    /// Whether a call has been found whose arguments are whole.
    pub fn called(&self) -> bool {
        self.called
    }

    /// Whether what was said last may belong to a call.
    pub(crate) fn in_call(&self) -> bool {
        !matches!(self.state, State::Outside)
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

    /// What was held back, when no more text comes. A call that has begun ends where it is cut:
    /// its arguments are no whole JSON then, and nobody can take them for it.
    pub fn finish(&mut self) -> Vec<Said> {
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Outside if self.called && held.trim().is_empty() => Vec::new(),
            State::Outside => Vec::from_iter(said(held)),
            State::Block { space, .. } => Vec::from_iter(said(format!("{space}{OPEN}{held}"))),
            State::Json(mut arguments) => Vec::from_iter(more(arguments.finish())),
            State::Xml(_) | State::Behind { .. } => Vec::new(),
        }
    }

    /// Makes one decision about the held text; `false` when it takes more text to decide.
    fn advance(&mut self, pieces: &mut Vec<Said>) -> bool {
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Outside => self.outside(pieces),
            State::Block { space, searched } => self.in_block(space, searched, pieces),
            State::Json(arguments) => self.in_json(arguments, pieces),
            State::Xml(parameters) => self.in_xml(parameters, pieces),
            State::Behind { braced } => self.behind(braced),
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
            self.state = State::Block { space, searched: 0 };
        }
        found.is_some()
    }

    fn in_block(&mut self, space: String, searched: usize, pieces: &mut Vec<Said>) -> bool {
        let block = self.held.trim_start();
        let blank = self.held.len() - block.len();
        if block.is_empty() {
            self.state = State::Block { space, searched };
            return false;
        }
        if block.starts_with('{') {
            match json::begin(block) {
                Beginning::Call { name, length } => {
                    let types = SchemaOfArguments::of(&name, &self.tools);
                    self.begin(name, blank + length, State::Json(Arguments::new(types)), pieces);
                    return true;
                }
                // A closing marker in a name is none.
                Beginning::Open => {}
                Beginning::Other => return self.whole_block(space, searched, pieces),
            }
        } else {
            match xml::begin(block) {
                Some(Some((name, length))) => {
                    let types = SchemaOfArguments::of(&name, &self.tools);
                    self.begin(name, blank + length, State::Xml(Parameters::new(types)), pieces);
                    return true;
                }
                None => {}
                Some(None) => return self.whole_block(space, searched, pieces),
            }
        }
        if self.held.contains(CLOSE) {
            return self.whole_block(space, searched, pieces);
        }
        self.state = State::Block { space, searched };
        false
    }

    fn begin(&mut self, name: String, length: usize, state: State, pieces: &mut Vec<Said>) {
        self.held.drain(..length);
        self.state = state;
        pieces.push(Said::Call(name));
    }

    /// A block that only its end tells: a call with its parts in another order, or none.
    fn whole_block(&mut self, space: String, searched: usize, pieces: &mut Vec<Said>) -> bool {
        let Some(found) = self.held[searched..].find(CLOSE) else {
            let unsure = self.held.len().saturating_sub(CLOSE.len() - 1);
            let searched = searched.max(self.held.floor_char_boundary(unsure));
            self.state = State::Block { space, searched };
            return false;
        };
        let end = searched + found;
        let after = end + CLOSE.len();
        match json::parse(self.held[..end].trim()) {
            Ok((name, arguments)) => {
                let types = SchemaOfArguments::of(&name, &self.tools);
                pieces.push(Said::Call(name));
                let (arguments, _) = Arguments::new(types).push(&arguments);
                pieces.extend(more(arguments));
                pieces.push(Said::Called);
                self.called = true;
                self.held.drain(..after);
            }
            Err(NoCall::GoesOn) => self.state = State::Block { space, searched: after },
            Err(NoCall::Broken) => {
                let block: String = self.held.drain(..after).collect();
                pieces.extend(said(format!("{space}{OPEN}{block}")));
            }
        }
        true
    }

    fn in_json(&mut self, mut arguments: Arguments, pieces: &mut Vec<Said>) -> bool {
        let (delta, end) = arguments.push(&self.held);
        pieces.extend(more(delta));
        match end {
            Some(End::Whole(end)) => {
                self.held.drain(..end);
                self.whole_arguments(false, pieces);
            }
            Some(End::Broken(at)) => {
                self.held.drain(..at);
                pieces.extend(more(arguments.finish()));
                self.state = State::Behind { braced: true };
            }
            None => {
                self.held.clear();
                self.state = State::Json(arguments);
            }
        }
        end.is_some()
    }

    fn in_xml(&mut self, mut parameters: Parameters, pieces: &mut Vec<Said>) -> bool {
        let mut delta = String::new();
        let progress = parameters.advance(&mut self.held, &mut delta);
        pieces.extend(more(delta));
        match progress {
            Progress::Going | Progress::Waiting => self.state = State::Xml(parameters),
            Progress::Whole => self.whole_arguments(true, pieces),
            // What follows is text; the call has ended where it stopped making sense.
            Progress::Broken => {}
        }
        progress != Progress::Waiting
    }

    fn whole_arguments(&mut self, braced: bool, pieces: &mut Vec<Said>) {
        self.called = true;
        self.state = State::Behind { braced };
        pieces.push(Said::Called);
    }

    /// Passes over the rest of a block. Without a closing marker the block ends with its call.
    fn behind(&mut self, braced: bool) -> bool {
        let rest = self.held.trim_start();
        if let Some(after) = rest.strip_prefix(CLOSE) {
            self.held = after.to_owned();
            return true;
        }
        if let Some(after) = rest.strip_prefix('}').filter(|_| !braced) {
            self.held = after.to_owned();
            self.state = State::Behind { braced: true };
            return true;
        }
        // Fields that no call has.
        let is_more = !braced && rest.starts_with(',');
        if let Some(end) = rest.find(CLOSE).filter(|_| is_more) {
            self.held = rest[end + CLOSE.len()..].to_owned();
            return true;
        }
        if is_more || CLOSE.starts_with(rest) {
            self.state = State::Behind { braced };
            return false;
        }
        true
    }
}

fn said(text: String) -> Option<Said> {
    (!text.is_empty()).then_some(Said::Text(text))
}

fn more(delta: String) -> Option<Said> {
    (!delta.is_empty()).then_some(Said::Arguments(delta))
}
