//! JSON text as Python's `json.dumps` writes it.
//!
//! Models were trained on prompts that Python rendered: separators with a space, `1.0` that stays
//! `1.0`, non-ASCII letters as they are, nothing escaped for HTML (requirement 125).

use std::fmt::Write;

use minijinja::value::{Serde, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// The keyword arguments of the `tojson` filter of Hugging Face templates.
pub(crate) struct Style {
    pub(crate) ensure_ascii: bool,
    pub(crate) indent: Option<usize>,
    pub(crate) separators: Option<(String, String)>,
    pub(crate) sort_keys: bool,
}

/// A value in one line, as the `tojson` of a template without arguments writes it.
pub(crate) fn line(value: &serde_json::Value) -> String {
    let style = Style { ensure_ascii: false, indent: None, separators: None, sort_keys: false };
    dumps(&Value::from(Serde(value)), &style).unwrap_or_else(|_| value.to_string())
}

/// The value as JSON text.
pub(crate) fn dumps(value: &Value, style: &Style) -> Result<String, Error> {
    let spaced = || (if style.indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    let (item, key) = style.separators.clone().unwrap_or_else(spaced);
    let mut writer = Writer { out: String::new(), style, item, key };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
    item: String,
    key: String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        const DEEPEST: usize = 256;
        if depth > DEEPEST {
            return Err(Error::new(ErrorKind::InvalidOperation, "value is nested too deep"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?;
                self.sequence(items, depth)?;
            }
            ValueKind::Map => self.map(value, depth)?,
            kind => {
                let message = format!("{kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn sequence(&mut self, items: impl Iterator<Item = Value>, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut any = false;
        for item in items {
            self.separate(any, depth + 1);
            self.value(&item, depth + 1)?;
            any = true;
        }
        self.close(any, depth, ']');
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.style.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        let any = !keys.is_empty();
        for (index, key) in keys.iter().enumerate() {
            self.separate(index > 0, depth + 1);
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                ValueKind::None => self.out.push_str("\"null\""),
                ValueKind::Bool => {
                    self.out.push_str(if key.is_true() { "\"true\"" } else { "\"false\"" });
                }
                _ => self.string(&number(key)),
            }
            self.out.push_str(&self.key);
            self.value(&map.get_item(key)?, depth + 1)?;
        }
        self.close(any, depth, '}');
        Ok(())
    }

    fn separate(&mut self, behind_another: bool, depth: usize) {
        if behind_another {
            self.out.push_str(&self.item);
        }
        self.line_break(depth);
    }

    fn close(&mut self, any: bool, depth: usize, bracket: char) {
        if any {
            self.line_break(depth);
        }
        self.out.push(bracket);
    }

    fn line_break(&mut self, depth: usize) {
        if let Some(indent) = self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => self.units(letter),
                letter if self.style.ensure_ascii && !letter.is_ascii() => self.units(letter),
                letter => self.out.push(letter),
            }
        }
        self.out.push('"');
    }

    fn units(&mut self, letter: char) {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            write!(self.out, "\\u{unit:04x}").expect("writing to a string does not fail");
        }
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
}

/// A float as Python's `str` writes it; `None` for any other value.
pub(crate) fn float_text(value: &Value) -> Option<String> {
    let is_float = value.is_number() && !value.is_integer();
    let value = if is_float { f64::try_from(value.clone()).ok()? } else { return None };
    Some(if value.is_finite() { float(value) } else { value.to_string().to_lowercase() })
}

/// A float as Python's `repr` writes it: the shortest digits that read back, with an exponent
/// below 1e-4 and from 1e16 on.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use super::float;

    // Requirement 125
    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (123456789.125, "123456789.125"),
        ];
        for (value, text) in cases {
            assert_eq!(float(value), text);
        }
    }
}
