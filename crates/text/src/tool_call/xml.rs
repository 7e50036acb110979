//! `<function=NAME><parameter=KEY>VALUE</parameter></function>`, as Qwen's coder models write it.
//!
//! The values carry no types; the tool's JSON schema says what each was meant to be. Text is passed
//! on as it comes, everything else when it is complete.

use serde_json::Value;

use super::CLOSE;
use super::coerce::{SchemaOfArguments, from_text, is_text};
use crate::stop::partial_suffix;

pub(super) const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";

/// What the beginning of a block says about the call in it: its name and how many bytes lead to
/// its first parameter or its end. `None` while it takes more text to say.
pub(super) fn begin(block: &str) -> Option<Option<(String, usize)>> {
    if let Some(after) = block.strip_prefix(FUNCTION) {
        let (name, rest) = after.split_once('>')?;
        let rest = rest.trim_start();
        let name = name.trim();
        return match starts(rest, &[PARAMETER, FUNCTION_END]) {
            _ if name.is_empty() || name.contains('<') => Some(None),
            Start::Yes => Some(Some((name.to_owned(), block.len() - rest.len()))),
            Start::Maybe => None,
            Start::No => Some(None),
        };
    }
    if FUNCTION.starts_with(block) { None } else { Some(None) }
}

/// Whether a text begins with one of the markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Yes,
    /// With a part of one, to which the text ends.
    Maybe,
    No,
}

fn starts(text: &str, markers: &[&str]) -> Start {
    if markers.iter().any(|marker| text.starts_with(marker)) {
        Start::Yes
    } else if markers.iter().any(|marker| marker.starts_with(text)) {
        Start::Maybe
    } else {
        Start::No
    }
}

/// The parameters of a call, on their way to being a JSON object.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    types: SchemaOfArguments,
    any: bool,
    value: Option<Parameter>,
}

/// The parameter at hand.
#[derive(Clone, Debug)]
struct Parameter {
    key: String,
    is_text: bool,
    /// Whether the text has begun. One that may also be null has to show first that it is not.
    opened: bool,
    /// Before the value's first letter.
    fresh: bool,
    /// Bytes of the value that hold no end of it.
    searched: usize,
}

/// How far the parameters have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More can be said of what is held.
    Going,
    /// It takes more text.
    Waiting,
    /// The object is whole.
    Whole,
    /// What comes is no parameter.
    Broken,
}

impl Parameters {
    pub(super) fn new(types: SchemaOfArguments) -> Self {
        Self { types, any: false, value: None }
    }

    /// Takes what it can off the beginning of `held`, and says it in `out`.
    pub(super) fn advance(&mut self, held: &mut String, out: &mut String) -> Progress {
        match self.value.take() {
            Some(value) => self.within(value, held, out),
            None => self.between(held, out),
        }
    }

    fn between(&mut self, held: &mut String, out: &mut String) -> Progress {
        let rest = held.trim_start();
        if rest.starts_with(FUNCTION_END) || rest.starts_with(CLOSE) {
            // Models forget the former.
            let rest = rest.strip_prefix(FUNCTION_END).unwrap_or(rest);
            *held = rest.to_owned();
            out.push_str(if self.any { "}" } else { "{}" });
            return Progress::Whole;
        }
        let Some(after) = rest.strip_prefix(PARAMETER) else {
            return match starts(rest, &[PARAMETER, FUNCTION_END, CLOSE]) {
                Start::No => Progress::Broken,
                Start::Maybe | Start::Yes => Progress::Waiting,
            };
        };
        let Some((key, body)) = after.split_once('>') else { return Progress::Waiting };
        let key = key.trim().to_owned();
        let types = self.types.of_argument(&key);
        let is_text = is_text(&types);
        let opened = is_text && !types.contains(&"null");
        out.push(if self.any { ',' } else { '{' });
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push_str(if opened { ":\"" } else { ":" });
        *held = body.to_owned();
        self.any = true;
        self.value = Some(Parameter { key, is_text, opened, fresh: true, searched: 0 });
        Progress::Going
    }

    fn within(&mut self, mut value: Parameter, held: &mut String, out: &mut String) -> Progress {
        if value.fresh && !held.is_empty() {
            value.fresh = false;
            if held.starts_with('\n') {
                held.drain(..1);
            }
        }
        let (safe, end) = end_of_value(held, value.searched);
        if let Some(end) = end {
            let text = held[..end].strip_suffix('\n').unwrap_or(&held[..end]);
            if value.opened {
                out.push_str(&escaped(text));
                out.push('"');
            } else {
                let types = self.types.of_argument(&value.key);
                out.push_str(&from_text(text, &types).to_string());
            }
            held.drain(..end + PARAMETER_END.len());
            return Progress::Going;
        }
        if value.is_text
            && !value.opened
            && !["null", "None"].iter().any(|it| it.starts_with(held[..safe].trim()))
        {
            value.opened = true;
            out.push('"');
        }
        if value.opened {
            // A line break before the end is no part of the value.
            let shown = held[..safe].strip_suffix('\n').map_or(safe, str::len);
            out.push_str(&escaped(&held[..shown]));
            held.drain(..shown);
            value.searched = 0;
        } else {
            value.searched = safe;
        }
        self.value = Some(value);
        Progress::Waiting
    }
}

/// Where a value may end, looking from byte `from` on: before the first end marker behind which
/// the block goes on as a block does, so that a value that itself holds the marker stays whole.
/// The first number says up to where nothing can be an end.
fn end_of_value(held: &str, from: usize) -> (usize, Option<usize>) {
    for (at, marker) in held[from..].match_indices(PARAMETER_END) {
        let at = from + at;
        let next = held[at + marker.len()..].trim_start();
        match starts(next, &[PARAMETER, FUNCTION_END, CLOSE]) {
            Start::Yes => return (at, Some(at)),
            Start::Maybe => return (at, None),
            Start::No => {}
        }
    }
    (held.len() - partial_suffix(held, PARAMETER_END), None)
}

/// A part of a text as it stands in a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
