//! JSON schemas, held against what the grammar compiler enforces.
//!
//! The compiler enforces most of JSON Schema 2020-12, refuses some of it, and passes over the rest
//! in silence. Whatever would be passed over and could make an answer invalid is refused here, by
//! its name and its place.

use serde_json::{Value, json};

/// Keywords of some draft, or of OpenAPI, that would be passed over or are not enforced.
const REFUSED: [&str; 21] = [
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "discriminator",
    "else",
    "extends",
    "if",
    "maxContains",
    "minContains",
    "not",
    "nullable",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    // The compiler's own switches, which would turn its checks off.
    "x-guidance",
    "disallow",
];

/// Values that ask for nothing.
const NEUTRAL: [(&str, bool); 4] = [
    ("nullable", false),
    ("uniqueItems", false),
    ("unevaluatedItems", true),
    ("unevaluatedProperties", true),
];

/// Formats of strings that are enforced.
pub(super) const FORMATS: [&str; 10] =
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"];

/// Whole numbers above are not exact in the compiler's arithmetic.
const MOST_EXACT: f64 = 9_007_199_254_740_991.0;

/// At most so many blanks and line breaks between two tokens of JSON: enough for deep indentation,
/// and an end for a model that has lost its way.
const WHITE_SPACE: &str = "[ \\t\\n\\r]{1,128}";

/// What is wrong with a schema, and where: a JSON pointer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) path: String,
    pub(super) reason: String,
}

/// The schema as the compiler reads it; its own switches are the only ones in it.
pub(super) fn compilable(schema: &Value) -> Result<Value, Wrong> {
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        Value::Object(_) => schema.clone(),
        _ => return Err(wrong("", "must be a JSON schema, an object that some value satisfies")),
    };
    check(&mut schema, "", true)?;
    // Draft by draft the compiler would pass over other keywords.
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("$schema");
        fields.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITE_SPACE}));
    }
    Ok(schema)
}

fn wrong(path: &str, reason: impl Into<String>) -> Wrong {
    Wrong { path: path.to_owned(), reason: reason.into() }
}

fn check(schema: &mut Value, path: &str, is_root: bool) -> Result<(), Wrong> {
    let Value::Object(fields) = schema else {
        return match schema {
            Value::Bool(_) => Ok(()),
            _ => Err(wrong(path, "must be a JSON schema")),
        };
    };
    let asks_nothing =
        |key: &str, value: &Value| NEUTRAL.iter().any(|(name, it)| *name == key && value == it);
    fields.retain(|key, value| !asks_nothing(key, value));
    if let Some(key) = fields.keys().find(|key| REFUSED.contains(&key.as_str())) {
        return Err(wrong(path, format!("the keyword {key} is not supported, leave it out")));
    }
    check_combinations(schema, path, is_root)?;
    let Value::Object(fields) = schema else { return Ok(()) };
    for (key, value) in fields.iter_mut() {
        let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        match key.as_str() {
            "properties" | "patternProperties" | "$defs" | "definitions" => {
                check_each(value, &path)?;
            }
            "prefixItems" | "anyOf" | "oneOf" | "allOf" => check_each(value, &path)?,
            "items" if value.is_array() => check_each(value, &path)?,
            "items" | "additionalItems" | "additionalProperties" => check(value, &path, false)?,
            "const" | "enum" => check_literal(value, &path)?,
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                check_literal(value, &path)?;
            }
            "$ref" => check_reference(value, &path)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_each(schemas: &mut Value, path: &str) -> Result<(), Wrong> {
    match schemas {
        Value::Object(named) => {
            named.iter_mut().try_for_each(|(key, one)| check(one, &format!("{path}/{key}"), false))
        }
        Value::Array(list) => (0..)
            .zip(list)
            .try_for_each(|(at, one): (usize, _)| check(one, &format!("{path}/{at}"), false)),
        _ => Err(wrong(path, "must hold JSON schemas")),
    }
}

/// Keywords that mean something else, or nothing, beside others.
fn check_combinations(schema: &Value, path: &str, is_root: bool) -> Result<(), Wrong> {
    let holds = |key: &str| schema.get(key).is_some();
    if !is_root && holds("$id") {
        return Err(wrong(path, "the keyword $id is only supported at the root"));
    }
    let old_items = holds("additionalItems") || schema["items"].is_array();
    if holds("prefixItems") && old_items {
        let reason = "the keyword prefixItems is not supported beside the older forms of items";
        return Err(wrong(path, reason));
    }
    if let Some(format) = schema["format"].as_str()
        && is_of_strings(schema)
        && !FORMATS.contains(&format)
    {
        let known = FORMATS.join(", ");
        let reason = format!("the format {format} is not supported, only {known}");
        return Err(wrong(path, reason));
    }
    // Two further keys may be the same one twice, which is one key to a reader.
    let required = schema["required"].as_array().map_or(0, Vec::len) as u64;
    if schema["minProperties"].as_u64().is_some_and(|least| least > required + 1) {
        let reason = "the keyword minProperties is only supported up to one more than the keys \
                      that are required";
        return Err(wrong(path, reason));
    }
    Ok(())
}

fn is_of_strings(schema: &Value) -> bool {
    match &schema["type"] {
        Value::String(name) => name == "string",
        Value::Array(names) => names.iter().any(|name| name == "string"),
        _ => true,
    }
}

fn check_literal(value: &Value, path: &str) -> Result<(), Wrong> {
    match value {
        Value::Number(number) if number.as_f64().is_some_and(|it| it.abs() > MOST_EXACT) => {
            Err(wrong(path, format!("the number {number} is too large to be enforced exactly")))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_literal(item, path)),
        Value::Object(fields) => fields.values().try_for_each(|item| check_literal(item, path)),
        _ => Ok(()),
    }
}

fn check_reference(value: &Value, path: &str) -> Result<(), Wrong> {
    let plain = |rest: &str| rest.is_empty() || rest.starts_with('/') && !rest.contains(['~', '%']);
    match value.as_str().and_then(|text| text.strip_prefix('#')) {
        Some(rest) if plain(rest) => Ok(()),
        _ => Err(wrong(path, "only references inside the schema are supported, as #/$defs/name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(schema: &Value) -> Wrong {
        compilable(schema).expect_err(&schema.to_string())
    }

    #[test]
    fn what_would_be_passed_over_is_refused_by_name_and_place() {
        // Requirement 106.
        for key in REFUSED {
            let schema = json!({"properties": {"a/b": {"items": {key: {}}}}});
            let Wrong { path, reason } = refused(&schema);
            assert_eq!(path, "/properties/a/b/items");
            assert!(reason.contains(key), "{reason}");
        }
        let table = [
            (json!({"format": "colour"}), "", "colour"),
            (json!({"anyOf": [{"$id": "x"}]}), "/anyOf/0", "$id"),
            (json!({"prefixItems": [], "additionalItems": true}), "", "prefixItems"),
            (json!({"minProperties": 2, "required": []}), "", "minProperties"),
            (json!({"$ref": "https://example.com/a"}), "/$ref", "inside"),
            (json!({"$ref": "#anchor"}), "/$ref", "inside"),
            (json!({"$ref": "#/$defs/a~1b"}), "/$ref", "inside"),
            (json!({"enum": [9007199254740993_u64]}), "/enum", "9007199254740993"),
            (json!({"items": "string"}), "/items", "schema"),
            (json!(false), "", "satisfies"),
            (json!(3), "", "schema"),
        ];
        for (schema, path, word) in table {
            let got = refused(&schema);
            assert!(got.path == path || got.path.starts_with(path), "{schema}: {got:?}");
            assert!(got.reason.contains(word), "{schema}: {got:?}");
        }
    }

    #[test]
    fn what_is_enforced_or_means_nothing_passes() {
        for schema in [
            json!(true),
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "title": "t"}),
            json!({"type": "integer", "format": "int32"}),
            json!({"type": "string", "format": "uuid", "examples": ["x"], "deprecated": true}),
            json!({"properties": {"not": {"type": "string"}, "if": true}}),
            json!({"minProperties": 2, "required": ["a"]}),
            json!({"enum": [{"not": 1}]}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}}),
            json!({"uniqueItems": false, "nullable": false}),
        ] {
            let got = compilable(&schema).expect("accepted");
            assert!(got.get("$schema").is_none() && got.get("uniqueItems").is_none());
            assert!(got["x-guidance"]["whitespace_pattern"].is_string());
        }
    }
}
