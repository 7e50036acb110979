//! A scanner of Rust text that is just clever enough for the rules: it knows comments, strings,
//! raw strings, characters and lifetimes, and it counts braces.

use std::ops::Range;

/// A function with a body, as it stands in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn`, from 1.
    pub(crate) line: usize,
    /// From the line of its `fn` to the line of its closing brace, both counted.
    pub(crate) lines: usize,
}

/// The text with comments, strings and characters turned into spaces; line breaks stay.
pub(crate) fn code(text: &str) -> String {
    blank(text, true)
}

/// The text with its comments turned into spaces; strings stay.
pub(crate) fn without_comments(text: &str) -> String {
    blank(text, false)
}

fn blank(text: &str, strings_too: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (end, is_comment) = match token_end(bytes, at) {
            Some(token) => token,
            None => {
                at += 1;
                continue;
            }
        };
        if is_comment || strings_too {
            let span = &mut out[at..end];
            span.iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters were replaced by spaces")
}

/// The end of the comment, string or character that begins at `at`, and whether it is a comment.
fn token_end(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        let length = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        return Some((at + length, true));
    }
    if rest.starts_with(b"/*") {
        return Some((at + block_comment(rest), true));
    }
    if let Some(length) = raw_string(bytes, at) {
        return Some((at + length, false));
    }
    match rest[0] {
        b'"' => Some((at + quoted(rest, b'"'), false)),
        b'\'' => character(rest).map(|length| (at + length, false)),
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of a raw string with its prefix: `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`.
fn raw_string(bytes: &[u8], start: usize) -> Option<usize> {
    if start > 0 && is_word(bytes[start - 1]) {
        return None;
    }
    let rest = &bytes[start..];
    let prefix = match rest {
        [b'r', ..] => 1,
        [b'b' | b'c', b'r', ..] => 2,
        _ => return None,
    };
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let body = open + 1;
    let closes = |at: usize| {
        rest[at] == b'"'
            && rest[at + 1..].iter().take(hashes).filter(|b| **b == b'#').count() == hashes
    };
    let end = (body..rest.len()).find(|at| closes(*at));
    Some(end.map_or(rest.len(), |at| at + 1 + hashes))
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; `None` when the quote begins a lifetime or a label.
fn character(rest: &[u8]) -> Option<usize> {
    let first = *rest.get(1)?;
    if first == b'\\' {
        return Some(quoted(rest, b'\''));
    }
    let width = match first {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (rest.get(1 + width) == Some(&b'\'')).then_some(2 + width)
}

/// Every function with a body in text that [`code`] has blanked.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, word) in words(code) {
        let after = at + word.len();
        let name_at = after + spaces(&bytes[after..]);
        if word != "fn" || name_at == after || bytes.get(name_at).is_none_or(|b| *b == b'(') {
            continue;
        }
        let name = code[name_at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_');
        let name: String = name.collect();
        if let Some(body) = block_after(bytes, name_at) {
            let line = line_of(code, at);
            let lines = line_of(code, body.end - 1) - line + 1;
            found.push(Function { name, line, lines });
        }
    }
    found
}

/// The spans of items under `#[cfg(test)]` in text that [`code`] has blanked.
pub(crate) fn test_spans(code: &str) -> Vec<Range<usize>> {
    let attribute = "#[cfg(test)]";
    let item = |(at, _): (usize, &str)| {
        block_after(code.as_bytes(), at + attribute.len()).map(|body| at..body.end)
    };
    code.match_indices(attribute).filter_map(item).collect()
}

/// The first `{…}` at or after `from` that is outside parentheses, brackets and generics; `None`
/// when a `;` comes first.
fn block_after(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let mut depth = 0i32;
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' | b'<' => depth += 1,
            b')' | b']' => depth -= 1,
            b'>' if bytes[at - 1] != b'-' => depth -= 1,
            b';' if depth <= 0 => return None,
            b'{' => {
                let end = closing_brace(bytes, at);
                if depth <= 0 {
                    return Some(at..end);
                }
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn closing_brace(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    bytes.len()
}

/// Words (identifiers, keywords, numbers) with the byte at which each begins.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let starts = |at: usize| at == 0 || !is_word(code.as_bytes()[at - 1]);
    let length = |at: usize| code.as_bytes()[at..].iter().take_while(|b| is_word(**b)).count();
    (0..code.len())
        .filter(move |at| is_word(code.as_bytes()[*at]) && starts(*at))
        .map(move |at| (at, &code[at..at + length(at)]))
}

/// The line of a byte, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count()
}

fn spaces(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_comments_and_characters_are_blanked_and_lifetimes_stay() {
        let cases = [
            ("a // {\nb", "a     \nb"),
            ("a /* { /* } */ */ b", "a                   b"),
            (r#"f("\"{", '{', '\'')"#, r#"f(     ,    ,     )"#),
            ("r#\"\"{\"# x", "          x"),
            ("br\"{\" r#fn", "       r#fn"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("'é' 'x: loop {}", "     'x: loop {}"),
        ];
        for (text, expected) in cases {
            // A blanked character keeps its bytes' count, so columns of bytes stay in place.
            assert_eq!(code(text).replace(' ', ""), expected.replace(' ', ""), "{text}");
            assert_eq!(code(text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn strings_stay_where_only_comments_go() {
        assert_eq!(without_comments("\"//\" // x"), "\"//\"     ");
    }

    #[test]
    fn functions_are_measured_from_fn_to_their_last_brace() {
        let text = "trait T { fn no_body(&self); }\n\
                    fn one() {}\n\
                    fn pointer(f: fn(u8) -> u8) -> [u8; { 3 }]\nwhere A<{ N }>: B,\n{\n'}';\n}\n\
                    fn outer() {\n    fn inner() {\n        \"}\";\n    }\n}\n";
        let found: Vec<_> =
            functions(&code(text)).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        let expected = [("one", 2, 1), ("pointer", 3, 5), ("outer", 8, 5), ("inner", 9, 3)];
        assert_eq!(found, expected.map(|(name, line, lines)| (name.to_owned(), line, lines)));
    }

    #[test]
    fn test_modules_are_found_and_outlined_ones_are_not() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\n#[cfg(test)]\nmod more;\n";
        let spans = test_spans(text);
        assert_eq!(spans.len(), 1);
        assert!(text[spans[0].clone()].ends_with("{ fn b() {} }"));
    }
}
