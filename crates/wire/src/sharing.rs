//! With whom a request shares what was computed for it: fields that name a caller.

use dialog::Sharing;

use crate::WireError;
use crate::fields::Object;

/// OpenAI's fields, of which the most particular one counts: `prompt_cache_key`, then
/// `safety_identifier`, then `user`. `cache_salt` is other servers' word for keeping apart.
pub(crate) fn openai(body: &Object<'_>) -> Result<Sharing, WireError> {
    let mut caller = None;
    for name in ["prompt_cache_key", "safety_identifier", "user"] {
        // All of them are read, so that a wrong one is refused whatever else is there.
        let named = body.text(name)?;
        caller = caller.or(named);
    }
    Ok(Sharing { salt: body.text("cache_salt")?, caller })
}

/// Anthropic's `metadata.user_id`.
pub(crate) fn anthropic(body: &Object<'_>) -> Result<Sharing, WireError> {
    let caller = match body.object("metadata")? {
        Some(metadata) => metadata.text("user_id")?,
        None => None,
    };
    Ok(Sharing { salt: body.text("cache_salt")?, caller })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dialect, fields};

    fn sharing(salt: Option<&str>, caller: Option<&str>) -> Sharing {
        Sharing { salt: salt.map(str::to_owned), caller: caller.map(str::to_owned) }
    }

    #[test]
    fn the_most_particular_name_counts() {
        let read = |body: &str| openai(&fields::body(body.as_bytes()).expect("an object"));
        let all = r#"{"user": "u", "safety_identifier": "s", "prompt_cache_key": "p"}"#;
        assert_eq!(read(all), Ok(sharing(None, Some("p"))));
        let some = r#"{"user": "u", "safety_identifier": "s", "cache_salt": "x"}"#;
        assert_eq!(read(some), Ok(sharing(Some("x"), Some("s"))));
        assert_eq!(read(r#"{"user": "u"}"#), Ok(sharing(None, Some("u"))));
        assert_eq!(read(r#"{"user": null}"#), Ok(Sharing::default()));
        let wrong = read(r#"{"prompt_cache_key": "p", "user": 5}"#).unwrap_err();
        assert!(wrong.to_string().contains("user"), "{wrong}");
    }

    #[test]
    fn every_dialect_says_with_whom() {
        let message = r#"{"role": "user", "content": "Hi"}"#;
        for (dialect, body) in [
            (Dialect::OpenaiChat, format!(r#""messages": [{message}], "user": "u""#)),
            (Dialect::OpenaiCompletions, r#""prompt": "Hi", "user": "u""#.to_owned()),
            (Dialect::OpenaiResponses, r#""input": "Hi", "user": "u""#.to_owned()),
            (
                Dialect::Anthropic,
                format!(
                    r#""messages": [{message}], "max_tokens": 5, "metadata": {{"user_id": "u"}}"#
                ),
            ),
        ] {
            let body = format!(r#"{{"model": "m", "cache_salt": "x", {body}}}"#);
            let (request, _) = dialect.parse(body.as_bytes()).expect("it parses");
            assert_eq!(request.sharing, sharing(Some("x"), Some("u")), "{dialect:?}");
        }
    }
}
