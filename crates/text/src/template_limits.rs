//! What a template may cost before it is compiled: a model file is not to be trusted, and a
//! compiler that has begun cannot be stopped.

use crate::TextError;

/// Ten times the longest templates that are published.
pub(crate) const LONGEST_SOURCE_BYTES: usize = 128 << 10;

/// Letters of a tag, those of its texts left out. The compiler's work grows with the square of a
/// chain of operators: at this length it is some hundredths of a second for each tag.
const LONGEST_TAG: usize = 2048;

/// Refuses a source that is too long, or has a tag that is.
pub(crate) fn check(source: &str) -> Result<(), TextError> {
    let bad = |reason: String| Err(TextError::BadTemplate(reason));
    if source.len() > LONGEST_SOURCE_BYTES {
        let length = source.len();
        return bad(format!("it has {length} bytes, the limit is {LONGEST_SOURCE_BYTES}"));
    }
    let mut rest = source;
    while let Some((open, length)) = next_tag(rest) {
        if length.letters > LONGEST_TAG {
            let line = 1 + source[..source.len() - rest.len() + open].matches('\n').count();
            return bad(format!("the tag in line {line} has over {LONGEST_TAG} letters"));
        }
        rest = &rest[open + length.bytes..];
    }
    Ok(())
}

/// The size of a tag.
#[derive(Debug, PartialEq, Eq)]
struct Length {
    bytes: usize,
    /// Without those of texts in quotes.
    letters: usize,
}

/// Where the next tag begins, and how long it is; a comment is a tag without letters.
fn next_tag(source: &str) -> Option<(usize, Length)> {
    let open = source
        .match_indices('{')
        .map(|(at, _)| at)
        .find(|at| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))?;
    let tag = &source[open..];
    if tag.starts_with("{#") {
        let bytes = tag.find("#}").map_or(tag.len(), |end| end + 2);
        return Some((open, Length { bytes, letters: 0 }));
    }
    let close = if tag.starts_with("{{") { "}}" } else { "%}" };
    let (mut quote, mut escaped, mut letters) = (None, false, 0);
    for (at, c) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(mark) if c == mark => quote = None,
            Some(_) => {}
            None if tag[at..].starts_with(close) => {
                return Some((open, Length { bytes: at + close.len(), letters }));
            }
            None => {
                letters += 1;
                quote = Some(c).filter(|c| matches!(c, '"' | '\''));
            }
        }
    }
    Some((open, Length { bytes: tag.len(), letters }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_measured_without_their_texts() {
        let length =
            |source| next_tag(source).map(|(at, length)| (at, length.bytes, length.letters));
        assert_eq!(length("no { tag } here }}"), None);
        assert_eq!(length("é {{ a }} b"), Some((3, 7, 3)));
        assert_eq!(length("{% if '}}%}\\'' %}x"), Some((0, 17, 6)));
        assert_eq!(length("{#- ' {{ -#}{{ a }}"), Some((0, 12, 0)));
        assert_eq!(length("{{ \"never closed }}"), Some((0, 19, 2)));
    }

    #[test]
    fn long_tags_are_refused_with_their_line_and_long_texts_are_not() {
        let check = |tag: String| check(&format!("text\n{{{{ a }}}}\n{tag}\n"));
        assert!(check(format!("{{{{ '{}' }}}}", "x".repeat(9000))).is_ok());
        assert!(check(format!("{{# {} #}}", "x".repeat(9000))).is_ok());
        assert!(check("{{ a }}".repeat(9000)).is_ok());
        let error = check(format!("{{{{ a{} }}}}", "+1".repeat(1024))).unwrap_err();
        assert_eq!(error.to_string(), "chat template: the tag in line 3 has over 2048 letters");
        assert!(check("x".repeat(LONGEST_SOURCE_BYTES)).is_err());
    }
}
