//! Typed access to the key-value part, with errors that say what was expected and found.

use std::collections::HashMap;
use std::path::Path;

use super::cursor::Cursor;
use super::value::{self, Array, Value, ValueType};
use crate::Error;

/// More keys than any model has; a bound on what a hostile file can make us remember.
const MOST_KEYS: u64 = 100_000;
/// The limit of the format.
const LONGEST_KEY: usize = 65_535;
/// A length, one character, a type and the smallest value.
const LEAST_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;

/// Where each value lies.
pub(super) struct Index {
    keys: Vec<String>,
    places: HashMap<String, (ValueType, usize)>,
}

impl Index {
    /// Reads `count` entries and checks every value in them.
    pub(super) fn read(file: &Path, cursor: &mut Cursor<'_>, count: u64) -> Result<Self, Error> {
        if count > MOST_KEYS || count > cursor.remaining() / LEAST_ENTRY_BYTES {
            let reason = format!("{count} metadata keys cannot be in this file");
            return Err(Error::bad(file, "header", reason));
        }
        let mut index = Self { keys: Vec::new(), places: HashMap::new() };
        for i in 0..count {
            let item = || format!("metadata entry {i}");
            let cut = || Error::bad(file, item(), "the file ends inside this entry");
            let key = cursor.string().ok_or_else(cut)?;
            if key.is_empty() || key.len() > LONGEST_KEY {
                let reason = format!("a key must have 1 to {LONGEST_KEY} bytes, not {}", key.len());
                return Err(Error::bad(file, item(), reason));
            }
            let Ok(key) = str::from_utf8(key) else {
                return Err(Error::bad(file, item(), "the key is not UTF-8"));
            };
            let id = cursor.u32().ok_or_else(cut)?;
            let item = || format!("metadata key `{}`", key.escape_debug());
            let unknown = || Error::bad(file, item(), value::Fault::UnknownType(id).reason());
            let ty = ValueType::from_id(id).ok_or_else(unknown)?;
            let at = cursor.at();
            value::read(cursor, ty, 0).map_err(|e| Error::bad(file, item(), e.reason()))?;
            if index.places.insert(key.to_owned(), (ty, at)).is_some() {
                return Err(Error::bad(file, item(), "the key is there twice"));
            }
            index.keys.push(key.to_owned());
        }
        Ok(index)
    }
}

/// The metadata of an open file.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    pub(super) file: &'a Path,
    pub(super) bytes: &'a [u8],
    pub(super) index: &'a Index,
}

impl<'a> Metadata<'a> {
    /// The file, for errors about its values.
    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// All keys in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.index.keys.iter().map(String::as_str)
    }

    /// The value of `key`, of whatever type.
    pub fn value(&self, key: &str) -> Option<Value<'a>> {
        let &(ty, at) = self.index.places.get(key)?;
        value::read(&mut Cursor::new(self.bytes, at), ty, 0).ok()
    }

    /// The value of `key`, if it is there.
    ///
    /// # Errors
    ///
    /// `BadConfig` with the key, the expected type and what was found, if it has another type or
    /// does not fit.
    pub fn find<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let wrong = || Error::config(self.file, key, T::EXPECTED, show(value));
        T::from_value(value).ok_or_else(wrong).map(Some)
    }

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// `Missing` without the key, otherwise as `find`.
    pub fn get<T: FromValue<'a>>(&self, key: &str) -> Result<T, Error> {
        let missing = || Error::missing(self.file, format!("metadata key `{key}`"));
        self.find(key)?.ok_or_else(missing)
    }
}

/// A value in the words of an error message, cut to a length that a log line bears.
fn show(value: Value<'_>) -> String {
    match value {
        Value::Unsigned(x) => x.to_string(),
        Value::Signed(x) => x.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
        Value::String(x) => {
            let text = String::from_utf8_lossy(&x[..x.len().min(40)]);
            format!("the text \"{}\"", text.escape_debug())
        }
        Value::Array(x) => format!("an array of {} ({:?})", x.len(), x.element_type()),
    }
}

/// What a metadata value can be read as.
pub trait FromValue<'a>: Sized {
    /// In words, for errors.
    const EXPECTED: &'static str;
    /// The value, if it is of this type and in its range.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

impl FromValue<'_> for u64 {
    const EXPECTED: &'static str = "a whole number that is not negative";
    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Unsigned(x) => Some(x),
            Value::Signed(x) => x.try_into().ok(),
            _ => None,
        }
    }
}

impl FromValue<'_> for u32 {
    const EXPECTED: &'static str = "a whole number of 32 bits";
    fn from_value(value: Value<'_>) -> Option<Self> {
        u64::from_value(value)?.try_into().ok()
    }
}

impl FromValue<'_> for usize {
    const EXPECTED: &'static str = "a whole number of 32 bits";
    fn from_value(value: Value<'_>) -> Option<Self> {
        u32::from_value(value)?.try_into().ok()
    }
}

impl FromValue<'_> for f64 {
    const EXPECTED: &'static str = "a number";
    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Float(x) => Some(x),
            _ => None,
        }
    }
}

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a number";
    fn from_value(value: Value<'_>) -> Option<Self> {
        f64::from_value(value).map(|x| x as f32)
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a truth value";
    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Bool(x) => Some(x),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a UTF-8 text";
    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::String(x) => str::from_utf8(x).ok(),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    const EXPECTED: &'static str = "an array";
    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::Array(x) => Some(x),
            _ => None,
        }
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Vec<T> {
    // Elements have their own expectation; the array as a whole is refused with this one.
    const EXPECTED: &'static str = "an array of one suitable type";
    fn from_value(value: Value<'a>) -> Option<Self> {
        let array = Array::from_value(value)?;
        let items: Option<Self> = array.iter().map(T::from_value).collect();
        items.filter(|items| items.len() == array.len())
    }
}
