use super::*;

#[test]
fn the_document_is_what_it_was() {
    let document: Value = serde_json::from_slice(&document()).expect("JSON");
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).expect("JSON"));
}

type Reader = fn(&[u8]) -> bool;

fn readers() -> Vec<(&'static str, Value, Reader)> {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    vec![
        ("ChatRequest", json!({"messages": messages}), |it| openai_chat::parse(it).is_ok()),
        ("CompletionRequest", json!({"prompt": "Hi"}), |it| openai_completions::parse(it).is_ok()),
        ("ResponseRequest", json!({"input": "Hi"}), |it| openai_responses::parse(it).is_ok()),
        ("MessageRequest", json!({"messages": messages, "max_tokens": 5}), |it| {
            anthropic::parse(it).is_ok()
        }),
        ("CountRequest", json!({"messages": messages}), |it| anthropic::parse_count(it).is_ok()),
        ("EmbeddingsRequest", json!({"input": "Hi"}), |it| embeddings::parse(it).is_ok()),
        ("TokenizeRequest", json!({"prompt": "Hi"}), |it| {
            crate::tokenize::parse_tokenize(it).is_ok()
        }),
        ("DetokenizeRequest", json!({"tokens": [1]}), |it| {
            crate::tokenize::parse_detokenize(it).is_ok()
        }),
    ]
}

/// Each described field is one that its reader looks at, and what is required it requires.
#[test]
fn requests_are_read_as_they_are_described() {
    let document: Value = serde_json::from_slice(&document()).expect("JSON");
    for (name, mut body, reads) in readers() {
        body["model"] = "m".into();
        let accepts = |body: &Value| reads(body.to_string().as_bytes());
        assert!(accepts(&body), "{name}");
        let schema = &document["components"]["schemas"][name];
        let fields = schema["properties"].as_object().expect("properties");
        assert!(fields.len() >= 2, "{schema}");
        let required = schema["required"].as_array().expect("required fields");
        for field in fields.keys() {
            let nonsense = json!({"no": "such thing"});
            let is_read = [nonsense.clone(), json!([nonsense])].into_iter().any(|value| {
                let mut wrong = body.clone();
                wrong[field] = value;
                !accepts(&wrong)
            });
            assert!(is_read, "{name} does not look at {field}");
            let mut without = body.clone();
            without.as_object_mut().expect("an object").remove(field);
            let is_required = required.iter().any(|it| it == field);
            assert_eq!(accepts(&without), !is_required, "{field} of {name}");
        }
    }
}

/// Every reference leads somewhere.
#[test]
fn references_are_whole() {
    let text = String::from_utf8(document()).expect("UTF-8");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let references: Vec<&str> = text.split("\"$ref\":\"#").skip(1).collect();
    assert!(references.len() > 10);
    for reference in references {
        let pointer = reference.split('"').next().unwrap_or_default();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
