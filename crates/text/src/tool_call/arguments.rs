//! The arguments of a call as JSON, passed on letter by letter.
//!
//! White space between its parts is left out. Only what may have to be written in another way is
//! held: a string where the schema wants something else, and a number where it wants a string.

use super::coerce::{SchemaOfArguments, from_json, is_text};

/// Where an object ends, in bytes of the text at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Behind its closing brace.
    Whole(usize),
    /// Before something that no JSON has: a marker, where a string has no end.
    Broken(usize),
}

/// Reads one JSON object, from its opening brace to its closing one.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    types: SchemaOfArguments,
    /// Open braces and brackets.
    depth: u32,
    inside_string: bool,
    escaped: bool,
    /// The name of the argument at hand, as JSON text.
    key: String,
    place: Place,
    /// What was passed on last, and whether white space came behind it.
    last: Option<char>,
    gap: bool,
    /// A value of the outer object that waits for its end.
    held: Option<String>,
}

/// What comes next in the outer object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Key,
    Colon,
    Value,
    /// The rest of a value, or what is behind it.
    Rest,
}

/// What no part of a number or word is.
fn is_mark(letter: char) -> bool {
    matches!(letter, '{' | '}' | '[' | ']' | ',' | ':' | '"')
}

impl Arguments {
    pub(super) fn new(types: SchemaOfArguments) -> Self {
        Self { types, ..Self::default() }
    }

    /// Takes letters up to the end of the object: what may be passed on, and the end if it is
    /// there.
    pub(super) fn push(&mut self, text: &str) -> (String, Option<End>) {
        let mut out = String::new();
        for (at, letter) in text.char_indices() {
            if letter == '<' && !self.is_in_string() {
                return (out, Some(End::Broken(at)));
            }
            if self.letter(letter, &mut out) {
                return (out, Some(End::Whole(at + letter.len_utf8())));
            }
        }
        (out, None)
    }

    fn is_in_string(&self) -> bool {
        self.inside_string || self.held.as_ref().is_some_and(|held| held.starts_with('"'))
    }

    /// What waits for its end, when no more comes.
    pub(super) fn finish(&mut self) -> String {
        self.held.take().unwrap_or_default()
    }

    /// Whether the object ends with this letter.
    fn letter(&mut self, letter: char, out: &mut String) -> bool {
        if self.held.is_some() {
            return self.hold(letter, out);
        }
        if self.inside_string {
            self.in_string(letter);
            self.pass(letter, out);
            return false;
        }
        if letter.is_whitespace() {
            self.gap = true;
            return false;
        }
        // White space means nothing but between two parts of a number or word, which then stay
        // apart: what was no JSON must not become some.
        if std::mem::take(&mut self.gap) && !is_mark(letter) && !self.last.is_some_and(is_mark) {
            out.push(' ');
        }
        let is_outer = self.depth == 1;
        match letter {
            '"' if is_outer && self.place == Place::Value && self.may_change(true) => {
                self.held = Some(String::from(letter));
                return false;
            }
            '"' => {
                self.inside_string = true;
                if is_outer && self.place == Place::Key {
                    self.key = String::from(letter);
                }
            }
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 1 {
                    self.place = Place::Rest;
                }
            }
            ':' if is_outer => self.place = Place::Value,
            ',' if is_outer => self.place = Place::Key,
            _ if !is_outer || self.place != Place::Value => {}
            _ if self.may_change(false) => {
                self.held = Some(String::from(letter));
                return false;
            }
            _ => self.place = Place::Rest,
        }
        self.pass(letter, out);
        self.depth == 0
    }

    fn pass(&mut self, letter: char, out: &mut String) {
        out.push(letter);
        self.last = Some(letter);
    }

    fn in_string(&mut self, letter: char) {
        let is_key = self.depth == 1 && self.place == Place::Key;
        if is_key {
            self.key.push(letter);
        }
        match letter {
            _ if self.escaped => self.escaped = false,
            '\\' => self.escaped = true,
            '"' => {
                self.inside_string = false;
                match self.place {
                    Place::Key if is_key => self.place = Place::Colon,
                    Place::Value if self.depth == 1 => self.place = Place::Rest,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Adds to the value that is held, or ends it.
    fn hold(&mut self, letter: char, out: &mut String) -> bool {
        let held = self.held.get_or_insert_default();
        if held.starts_with('"') {
            held.push(letter);
            match letter {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.settle(out),
                _ => {}
            }
            return false;
        }
        if letter.is_whitespace() || matches!(letter, ',' | '}' | ']') {
            self.settle(out);
            return self.letter(letter, out);
        }
        held.push(letter);
        false
    }

    fn settle(&mut self, out: &mut String) {
        let held = self.held.take().unwrap_or_default();
        let value = from_json(&held, &self.types_at_hand());
        self.last = value.chars().next_back();
        out.push_str(&value);
        self.place = Place::Rest;
    }

    /// Whether a value that begins as a string, or as a number or word, may be another one.
    fn may_change(&self, is_string: bool) -> bool {
        let types = self.types_at_hand();
        if is_string { !is_text(&types) } else { types == ["string"] }
    }

    fn types_at_hand(&self) -> Vec<&str> {
        let key: Option<String> = serde_json::from_str(&self.key).ok();
        key.map_or_else(Vec::new, |key| self.types.of_argument(&key))
    }
}
