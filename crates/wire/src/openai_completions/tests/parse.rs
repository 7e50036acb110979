use dialog::{GenerateRequest, Prompt};
use serde_json::{Value, json};

use crate::WireError;
use crate::openai_completions::{ReplyOptions, parse};

fn read(more: &Value) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    let mut body = json!({"model": "m", "prompt": "Once"});
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    parse(body.to_string().as_bytes())
}

fn prompt(prompt: &Value) -> Prompt {
    let read = read(&json!({ "prompt": prompt }));
    read.unwrap_or_else(|error| panic!("{prompt}: {error}")).0.prompt
}

#[test]
fn a_prompt_comes_in_four_forms() {
    let text = Prompt::Text("a\nb".to_owned());
    assert_eq!(prompt(&json!("a\nb")), text);
    assert_eq!(prompt(&json!(["a\nb"])), text);
    assert_eq!(prompt(&json!([5, 0, 7])), Prompt::Tokens(vec![5, 0, 7]));
    assert_eq!(prompt(&json!([[5, 0, 7]])), Prompt::Tokens(vec![5, 0, 7]));
    assert_eq!(prompt(&json!("")), Prompt::Text(String::new()));
}

#[test]
fn parameters_are_honoured() {
    let (request, reply) = read(&json!({
        "max_tokens": 7, "temperature": 0, "seed": 3, "stop": "x", "stream": true, "n": 1,
        "stream_options": {"include_usage": true}, "logprobs": null, "echo": false,
        "suffix": null, "best_of": 1, "user": "u", "ignore_eos": true, "min_tokens": 1,
    }))
    .expect("accepted");
    assert_eq!((request.max_tokens, request.min_tokens), (Some(7), 1));
    assert_eq!((request.sampling.temperature, request.sampling.seed), (Some(0.0), Some(3)));
    assert_eq!((request.stop, request.ignore_eos), (vec!["x".to_owned()], true));
    assert_eq!(reply, ReplyOptions { stream: true, include_usage: true, choices: 1 });
    assert!(!request.fit_context);
}

// Requirement 106, robustness 50
#[test]
fn what_is_wrong_or_not_done_is_named() {
    let cases = json!({
        "model": [null, "", 5], "echo": [true], "suffix": ["x"], "best_of": [2], "n": [9, 0],
        "logprobs": [21, -1, true], "max_tokens": [0, -1, 1.5, "8"], "temperature": [-1, 3],
        "prompt": [null, 5, {}, [], [[]], [[[1]]], ["a", "b"], [[1], [2]], [1, "a"], [-1],
            [1.5], [4294967296_u64], [true]],
        "stop": [["a", "b", "c", "d", "e"], 5], "stream": ["yes"],
        "response_format": ["json"],
    });
    for (field, values) in cases.as_object().expect("an object") {
        for value in values.as_array().expect("an array") {
            let error = read(&json!({ field: value })).expect_err(&format!("{field}: {value}"));
            assert_eq!(error.param(), Some(field.as_str()), "{value}: {error}");
        }
    }
    assert_eq!(read(&json!({"prompt": [[1, "a"]]})).expect_err("mixed").param(), Some("prompt"));
    assert_eq!(parse(b""), Err(WireError::EmptyBody));
    assert!(parse(b"{\"model\": \"m\", \"prompt\": \"\\ud800\"}").is_err());
}
