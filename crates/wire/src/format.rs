//! The form that an answer must have, as each dialect says it.

use dialog::AnswerFormat;

use crate::WireError;
use crate::fields::Object;
use crate::tools::checked_schema;

/// Reads `response_format`, `text.format` or whatever its dialect calls it; `None` is free text.
///
/// The schema lies beside the type, or one level below as chat completions have it.
pub(crate) fn answer_format(
    parent: &Object<'_>,
    name: &str,
) -> Result<Option<AnswerFormat>, WireError> {
    let Some(format) = parent.object(name)? else { return Ok(None) };
    match format.text("type")?.as_deref() {
        None => Err(format.missing("type")),
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(AnswerFormat::JsonObject)),
        Some("json_schema") => {
            let nested = format.object("json_schema")?;
            let holder = nested.as_ref().unwrap_or(&format);
            // What is asked for is enforced, with or without this word.
            holder.flag("strict")?;
            holder.object("schema")?.ok_or_else(|| holder.missing("schema"))?;
            Ok(Some(AnswerFormat::JsonSchema(checked_schema(holder, "schema")?)))
        }
        Some(_) => Err(format.wrong("type", "must be text, json_object or json_schema")),
    }
}
