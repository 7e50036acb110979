//! Wishes that would change an answer and are not done: refused by name, never ignored.

use serde_json::value::RawValue;

use crate::WireError;
use crate::fields::Object;

/// Fields that other servers know, in whatever dialect, with the values that ask for nothing
/// (requirement 106).
pub(crate) const NOT_DONE: &[(&str, &[&str])] = &[
    ("prompt_logprobs", &["0"]),
    ("echo", &["false"]),
    ("suffix", &["\"\""]),
    ("best_of", &["1"]),
    ("grammar", &["\"\""]),
    ("guided_grammar", &[]),
    ("use_beam_search", &["false"]),
    ("length_penalty", &["1", "1.0"]),
    ("stop_token_ids", &["[]"]),
    ("bad_words", &["[]"]),
    ("allowed_token_ids", &[]),
    ("include_stop_str_in_output", &["false"]),
    ("skip_special_tokens", &["true"]),
    ("repeat_last_n", &[]),
    ("typical_p", &["1", "1.0"]),
    ("top_a", &["0", "0.0"]),
    ("tfs_z", &["1", "1.0"]),
    ("mirostat", &["0"]),
    ("dry_multiplier", &["0", "0.0"]),
    ("xtc_probability", &["0", "0.0"]),
];

/// Other servers' names for the form of an answer, refused by the dialects that have one name for
/// it and no more.
pub(crate) const OTHER_FORMS: &[(&str, &[&str])] = &[
    ("structured_outputs", &[]),
    ("guided_json", &[]),
    ("guided_regex", &[]),
    ("guided_choice", &[]),
    ("json_schema", &[]),
];

/// Refuses the first field of `wishes` that asks for something.
pub(crate) fn refuse(body: &Object<'_>, wishes: &[(&str, &[&str])]) -> Result<(), WireError> {
    for (name, neutral) in wishes {
        let asked = body.raw(name).map(RawValue::get);
        if asked.is_some_and(|value| !neutral.contains(&value)) {
            return Err(body.unsupported(name, "leave it out"));
        }
    }
    Ok(())
}

/// One answer a request, in dialects that have no place for several.
pub(crate) fn one_choice(body: &Object<'_>) -> Result<(), WireError> {
    if body.integer("n", 1..=128)?.unwrap_or(1) > 1 {
        return Err(body.unsupported("n", "values above 1 are not served, send several requests"));
    }
    Ok(())
}

/// How many answers are wanted.
pub(crate) fn choices(body: &Object<'_>) -> Result<u32, WireError> {
    const MOST: i64 = 8;
    let choices = body.integer("n", 1..=MOST)?.unwrap_or(1);
    Ok(u32::try_from(choices).unwrap_or(1))
}
