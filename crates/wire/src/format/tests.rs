use serde_json::{Value, json};

use super::*;

fn read(body: &Value) -> Result<(Option<AnswerFormat>, Option<&'static str>), WireError> {
    let text = body.to_string();
    any_format(&fields::body(text.as_bytes()).expect("an object"))
}

#[track_caller]
fn found(body: &Value) -> (AnswerFormat, Option<&'static str>) {
    let (format, field) = read(body).unwrap_or_else(|error| panic!("{body}: {error}"));
    (format.unwrap_or_else(|| panic!("{body}: no format")), field)
}

#[test]
fn a_form_is_asked_for_under_any_of_its_names() {
    let regex = || AnswerFormat::Regex("[a-z]+".to_owned());
    let choice = || AnswerFormat::OneOf(vec!["yes".to_owned(), "no".to_owned()]);
    let schema = || AnswerFormat::JsonSchema(Json("{\"type\":\"object\"}".to_owned()));
    let outputs = Some("structured_outputs");
    for (body, want, field) in [
        (json!({"response_format": {"type": "regex", "pattern": "[a-z]+"}}), regex(), None),
        (json!({"structured_outputs": {"regex": "[a-z]+"}}), regex(), outputs),
        (json!({"guided_regex": "[a-z]+"}), regex(), Some("guided_regex")),
        (json!({"structured_outputs": {"choice": ["yes", "no"]}}), choice(), outputs),
        (json!({"guided_choice": ["yes", "no"]}), choice(), Some("guided_choice")),
        (json!({"structured_outputs": {"json": {"type": "object"}}}), schema(), outputs),
        (json!({"guided_json": "{\"type\":\"object\"}"}), schema(), Some("guided_json")),
        (json!({"json_schema": {"type": "object"}}), schema(), Some("json_schema")),
        (json!({"structured_outputs": {"json_object": true}}), AnswerFormat::JsonObject, outputs),
        (
            json!({"response_format": {"type": "text"}, "guided_json": null,
                "structured_outputs": {"json": null, "regex": "[a-z]+", "json_object": false,
                    "grammar": null, "disable_any_whitespace": false}}),
            regex(),
            outputs,
        ),
    ] {
        assert_eq!(found(&body), (want, field), "{body}");
    }
    for nothing in [json!({}), json!({"structured_outputs": {}, "guided_regex": null})] {
        assert_eq!(read(&nothing), Ok((None, None)), "{nothing}");
    }
}

// Requirement 106, robustness 76
#[test]
fn what_is_wrong_with_a_form_is_named_by_its_place() {
    for (body, param) in [
        (json!({"response_format": {"type": "regex"}}), "response_format.pattern"),
        (json!({"response_format": {"type": "regex", "pattern": 5}}), "response_format.pattern"),
        (json!({"guided_regex": ""}), "guided_regex"),
        (json!({"guided_choice": []}), "guided_choice"),
        (json!({"guided_choice": "yes"}), "guided_choice"),
        (json!({"guided_choice": ["yes", 1]}), "guided_choice[1]"),
        (json!({"guided_choice": ["yes", ""]}), "guided_choice"),
        (json!({"guided_json": "{"}), "guided_json"),
        (json!({"guided_json": [1]}), "guided_json"),
        (json!({"json_schema": true}), "json_schema"),
        (json!({"structured_outputs": "json"}), "structured_outputs"),
        (json!({"structured_outputs": {"regex": 1}}), "structured_outputs.regex"),
        (json!({"structured_outputs": {"json_object": 1}}), "structured_outputs.json_object"),
        (json!({"structured_outputs": {"grammar": "root"}}), "structured_outputs.grammar"),
        (
            json!({"structured_outputs": {"choice": ["a"], "regex": "a"}}),
            "structured_outputs.choice",
        ),
        (json!({"response_format": {"type": "json_object"}, "guided_regex": "a"}), "guided_regex"),
        (json!({"structured_outputs": {"regex": "a"}, "json_schema": {}}), "json_schema"),
    ] {
        let error = read(&body).expect_err(&body.to_string());
        assert_eq!(error.param(), Some(param), "{body}: {error}");
    }
}
