//! JSON objects read field by field, each error naming its field.
//!
//! An object is split into raw slices first and a field is parsed when it is asked for. Fields
//! that nobody asks for cost a scan and no memory, and the scan does not recurse, so that no depth
//! of nesting can overflow the stack.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::WireError;
use crate::error::clip;

/// One JSON object whose fields are still text.
pub(crate) struct Object<'a> {
    path: String,
    entries: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// The body's top-level object.
pub(crate) fn body(bytes: &[u8]) -> Result<Object<'_>, WireError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.trim_ascii().is_empty() {
        return Err(WireError::EmptyBody);
    }
    if !bytes.trim_ascii_start().starts_with(b"{") {
        let raw: &RawValue = serde_json::from_slice(bytes).map_err(|error| syntax(&error))?;
        return Err(WireError::NotAnObject { found: kind(raw) });
    }
    let Entries(entries) = serde_json::from_slice(bytes).map_err(|error| syntax(&error))?;
    Ok(Object { path: String::new(), entries })
}

impl<'a> Object<'a> {
    fn read(raw: &'a RawValue, path: String) -> Result<Self, WireError> {
        match serde_json::from_str::<Entries<'a>>(raw.get()) {
            Ok(Entries(entries)) => Ok(Self { path, entries }),
            Err(error) => {
                let expected = format!("must be an object with readable keys ({error})");
                Err(invalid(path, expected, raw))
            }
        }
    }

    /// The value as an object, or an error that names `path`.
    pub(crate) fn from_value(raw: &'a RawValue, path: String) -> Result<Self, WireError> {
        if raw.get().starts_with('{') {
            Self::read(raw, path)
        } else {
            Err(invalid(path, "must be an object".to_owned(), raw))
        }
    }

    /// The path of this object.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The path of a field of this object.
    pub(crate) fn at(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// The fields in order; of duplicates the last one counts.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.entries.iter().map(|(name, raw)| (name.as_ref(), *raw))
    }

    /// The field's text; `null` counts as absent.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let (_, raw) = self.entries.iter().rev().find(|(key, _)| key == name)?;
        (raw.get() != "null").then_some(raw)
    }

    /// An error for a field that must be there.
    pub(crate) fn missing(&self, name: &str) -> WireError {
        WireError::Missing { param: self.at(name) }
    }

    /// An error for the value of a field.
    pub(crate) fn wrong(&self, name: &str, expected: impl Into<String>) -> WireError {
        match self.raw(name) {
            Some(raw) => invalid(self.at(name), expected.into(), raw),
            None => self.missing(name),
        }
    }

    /// An error for a field whose wish is not done here.
    pub(crate) fn unsupported(&self, name: &str, advice: impl Into<String>) -> WireError {
        WireError::Unsupported { param: self.at(name), advice: advice.into() }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, WireError> {
        self.raw(name).map(|raw| text(raw, || self.at(name))).transpose()
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, WireError> {
        match self.raw(name).map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    pub(crate) fn integer(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, WireError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match raw.get().parse::<i64>() {
            Ok(value) if range.contains(&value) => Ok(Some(value)),
            _ => {
                let (low, high) = range.into_inner();
                Err(self.wrong(name, format!("must be an integer from {low} to {high}")))
            }
        }
    }

    /// A number within `range`; `open` leaves its lower end out.
    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<f32>,
        open: bool,
    ) -> Result<Option<f32>, WireError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        // JSON's spelling of numbers is a part of Rust's; words such as `inf` never parse as JSON.
        let value = raw.get().parse::<f32>().ok();
        match value {
            Some(value) if range.contains(&value) && !(open && value <= *range.start()) => {
                Ok(Some(value))
            }
            _ => {
                let (low, high) = range.into_inner();
                let expected = if open {
                    format!("must be a number greater than {low} and at most {high}")
                } else {
                    format!("must be a number from {low} to {high}")
                };
                Err(self.wrong(name, expected))
            }
        }
    }

    pub(crate) fn array(&self, name: &str) -> Result<Option<Vec<&'a RawValue>>, WireError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if !raw.get().starts_with('[') {
            return Err(self.wrong(name, "must be an array"));
        }
        match serde_json::from_str(raw.get()) {
            Ok(items) => Ok(Some(items)),
            Err(error) => Err(self.wrong(name, format!("must be an array ({error})"))),
        }
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Object<'a>>, WireError> {
        self.raw(name).map(|raw| Self::from_value(raw, self.at(name))).transpose()
    }
}

/// The value as a string, or an error that names the field.
pub(crate) fn text(raw: &RawValue, path: impl FnOnce() -> String) -> Result<String, WireError> {
    if !raw.get().starts_with('"') {
        return Err(invalid(path(), "must be a string".to_owned(), raw));
    }
    serde_json::from_str(raw.get()).map_err(|_| {
        invalid(path(), "must be a string of whole Unicode characters".to_owned(), raw)
    })
}

/// An error that shows the value.
pub(crate) fn invalid(param: String, expected: String, raw: &RawValue) -> WireError {
    WireError::Invalid { param, expected, found: clip(raw.get()) }
}

fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn syntax(error: &serde_json::Error) -> WireError {
    // The library ends its message with the place, which the variant carries by itself.
    let whole = error.to_string();
    let reason = whole.split(" at line ").next().unwrap_or_default().to_owned();
    WireError::Syntax { line: error.line(), column: error.column(), reason }
}

struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A key, borrowed when it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Key(name), raw)) = map.next_entry()? {
                    entries.push((name, raw));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
