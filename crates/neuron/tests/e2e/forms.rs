//! Formats, tools that must be called, several answers and log-probabilities, from a model of
//! random weights: what is right about its answers is not its own doing.

use serde_json::{Value, json};

use crate::client::{self, payloads, request};
use crate::node::{MODEL, Node, chat_body};

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "count": {"type": "integer", "minimum": 1, "maximum": 99},
        "unit": {"enum": ["C", "F"]}},
        "required": ["count", "unit"], "additionalProperties": false})
}

fn check(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let count = value["count"].as_u64().unwrap();
    assert!((1..=99).contains(&count), "{text}");
    assert!(["C", "F"].contains(&value["unit"].as_str().unwrap()), "{text}");
    assert_eq!(value.as_object().unwrap().len(), 2, "{text}");
}

/// Parameters that let the model wander, and the same way each time.
fn wandering(more: Value) -> Value {
    let mut body = json!({"temperature": 1.0, "top_p": 1.0, "seed": 7, "max_tokens": 600});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn every_dialect_keeps_a_format() {
    // Requirements 106 and 110.
    let node = Node::with_random_model().await;
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema()}});
    let more = wandering(json!({"response_format": format}));
    let whole = node.chat("hi", more.clone()).await.json();
    assert_eq!(whole["choices"][0]["finish_reason"], "stop", "{whole}");
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    check(text);
    let stream = node.stream("hi", more).await.rest().await;
    assert_eq!(client::streamed_text(&stream), text);

    let flat = json!({"type": "json_schema", "name": "n", "schema": schema()});
    let body = wandering(json!({"model": MODEL, "input": "hi", "max_output_tokens": 600,
        "text": {"format": flat}}));
    let answer = node.post("/v1/responses", &body).await.json();
    check(answer["output"][0]["content"][0]["text"].as_str().unwrap());
    assert_eq!(answer["text"]["format"], flat);

    let mut body = chat_body("hi", wandering(json!({"output_config": {"format": flat}})));
    let answer = node.post("/v1/messages", &body).await.json();
    check(answer["content"][0]["text"].as_str().unwrap());
    body["output_config"] = Value::Null;
    body["output_format"] = flat;
    let again = node.post("/v1/messages", &body).await.json();
    assert_eq!(again["content"], answer["content"]);
    node.settled().await;
}

#[tokio::test]
async fn a_regular_expression_and_a_choice_are_kept_under_their_names() {
    // Requirement 106.
    let node = Node::with_random_model().await;
    let is_date = |text: &str| {
        let (year, rest) = text.split_at(4);
        year.bytes().all(|byte| byte.is_ascii_digit()) && ["/01", "/12"].contains(&rest)
    };
    let pattern = "^[0-9]{4}/(01|12)$";
    for more in [
        json!({"response_format": {"type": "regex", "pattern": pattern}}),
        json!({"structured_outputs": {"regex": pattern}}),
        json!({"guided_regex": pattern}),
    ] {
        let chat = node.chat("hi", wandering(more.clone())).await.json();
        let text = chat["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(is_date(text), "{text}");
        assert_eq!(chat["choices"][0]["finish_reason"], "stop", "{chat}");
        let mut body = wandering(more);
        (body["model"], body["prompt"]) = (json!(MODEL), json!("hi"));
        let completion = node.post("/v1/completions", &body).await.json();
        assert!(is_date(completion["choices"][0]["text"].as_str().unwrap()), "{completion}");
    }
    let choice = json!({"structured_outputs": {"choice": ["yes", "no"]}});
    let chat = node.chat("hi", wandering(choice)).await.json();
    assert!(["yes", "no"].contains(&chat["choices"][0]["message"]["content"].as_str().unwrap()));
    node.settled().await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_by_name() {
    // Requirements 7 and 106: before a byte of a stream.
    let node = Node::with_random_model().await;
    let formatted = |schema: Value| {
        json!({"stream": true, "response_format":
            {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}})
    };
    let table = [
        (formatted(json!({"not": {"type": "string"}})), "response_format", "not"),
        (formatted(json!({"type": "string", "format": "colour"})), "response_format", "colour"),
        (formatted(json!({"properties": {"a": {"uniqueItems": true}}})), "response_format", "/a"),
        // Found by the engine, when it compiles.
        (formatted(json!({"type": "string", "pattern": "(?=a)b"})), "response_format", "(?=a)b"),
        (formatted(json!({"type": "integer", "minimum": 3, "maximum": 2})), "response_format", ""),
        (formatted(json!({"$ref": "#/$defs/gone"})), "response_format", "gone"),
        (json!({"guided_regex": "a(b"}), "guided_regex", "unclosed group"),
        (json!({"guided_regex": "(?=a)b"}), "guided_regex", "look-around"),
        (json!({"structured_outputs": {"regex": "(?<stop>a)b"}}), "structured_outputs", "stop"),
        (
            json!({"tool_choice": "required", "tools": [{"function":
                {"name": "f", "parameters": {"properties": {"x": {"not": {}}}}}}]}),
            "tools",
            "f/properties/x",
        ),
        (
            json!({"ignore_eos": true, "response_format": {"type": "json_object"}}),
            "response_format",
            "ignore_eos",
        ),
    ];
    for (more, param, word) in table {
        let answer = node.chat("hi", more.clone()).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["param"], param, "{more}: {error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{more}: {error}");
    }
    node.settled().await;
}

#[tokio::test]
async fn tools_that_must_be_called_are_called() {
    // Requirements 14, 15 and 106.
    let node = Node::with_random_model().await;
    let tools = json!([
        {"type": "function", "function": {"name": "weather", "parameters": schema()}},
        {"type": "function", "function": {"name": "now"}},
    ]);
    let named = json!({"type": "function", "function": {"name": "weather"}});
    for choice in [json!("required"), named] {
        let more = wandering(json!({"tools": tools, "tool_choice": choice,
            "parallel_tool_calls": false}));
        let answer = node.chat("hi", more).await.json();
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        assert_eq!(calls.len(), 1, "{answer}");
        let arguments = calls[0]["function"]["arguments"].as_str().unwrap();
        match calls[0]["function"]["name"].as_str().unwrap() {
            "weather" => check(arguments),
            name => assert_eq!((name, arguments), ("now", "{}")),
        }
    }
    let body = chat_body(
        "hi",
        wandering(json!({
        "tools": [{"name": "weather", "input_schema": schema()}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}})),
    );
    let answer = node.post("/v1/messages", &body).await.json();
    assert_eq!(answer["stop_reason"], "tool_use", "{answer}");
    check(&answer["content"][0]["input"].to_string());
    let body = wandering(json!({"model": MODEL, "input": "hi", "max_output_tokens": 600,
        "tools": [{"type": "function", "name": "weather", "parameters": schema()}],
        "tool_choice": {"type": "function", "name": "weather"}}));
    let answer = node.post("/v1/responses", &body).await.json();
    check(answer["output"][0]["arguments"].as_str().unwrap());
    assert_eq!(answer["tool_choice"]["name"], "weather");
}

#[tokio::test]
async fn several_answers_share_their_prompt() {
    let node = Node::with_random_model().await;
    let prompt = "a prompt of more than a few blocks of tokens, each of them a byte";
    let more = wandering(json!({"n": 3, "max_tokens": 12, "ignore_eos": true}));
    let answer = node.chat(prompt, more.clone()).await.json();
    let choices = answer["choices"].as_array().unwrap();
    let text = |choice: &Value| choice["message"]["content"].as_str().unwrap().to_owned();
    let texts: Vec<String> = choices.iter().map(text).collect();
    assert_eq!(texts.len(), 3);
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2], "{texts:?}");
    let one =
        node.chat(prompt, wandering(json!({"max_tokens": 12, "ignore_eos": true}))).await.json();
    assert_eq!(text(&one["choices"][0]), texts[0], "the first answer is that of the seed");
    let (all, single) = (&answer["usage"], &one["usage"]);
    assert_eq!(all["prompt_tokens"], single["prompt_tokens"]);
    assert_eq!(all["completion_tokens"], 36);
    let metrics = node.get("/metrics").await.text();
    let line = metrics.lines().find(|line| line.starts_with("neuron_cached_prompt_tokens_total{"));
    let cached: f64 = line.unwrap().split_whitespace().last().unwrap().parse().unwrap();
    assert!(cached >= 2.0 * 64.0, "the further answers read the prompt out of the cache: {cached}");

    let stream = node.stream(prompt, more).await.rest().await;
    let mut streamed = vec![String::new(); 3];
    let mut ends = 0;
    for chunk in payloads(&stream) {
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        streamed[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        ends += usize::from(!choice["finish_reason"].is_null());
    }
    assert_eq!((streamed, ends), (texts, 3));
    assert!(stream.ends_with("data: [DONE]\n\n"));
    node.settled().await;
}

#[tokio::test]
async fn logprobs_tell_every_token_of_the_words() {
    let node = Node::with_random_model().await;
    let more = json!({"temperature": 0, "max_tokens": 16, "logprobs": true, "top_logprobs": 3});
    let answer = node.chat("hi", more.clone()).await.json();
    let choice = &answer["choices"][0];
    let tokens = choice["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(tokens.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token["bytes"].as_array().unwrap())
        .map(|byte| byte.as_u64().unwrap() as u8)
        .collect();
    assert_eq!(String::from_utf8_lossy(&bytes), choice["message"]["content"].as_str().unwrap());
    for token in &tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["logprob"]), (3, &token["logprob"]), "greedy: {token}");
        let sum: f64 = top.iter().map(|top| top["logprob"].as_f64().unwrap().exp()).sum();
        assert!(sum > 0.0 && sum <= 1.0 + 1e-6);
    }
    let stream = node.stream("hi", more).await.rest().await;
    let chunks = payloads(&stream);
    let content = chunks.iter().filter_map(|it| it["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(content.flatten().cloned().collect::<Vec<_>>(), tokens);

    let body = json!({"model": MODEL, "prompt": "hi", "temperature": 0, "max_tokens": 8,
        "logprobs": 2});
    let answer = node.post("/v1/completions", &body).await.json();
    let lists = &answer["choices"][0]["logprobs"];
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(lists[list].as_array().map(Vec::len), Some(8), "{list}: {answer}");
    }
    let body = json!({"model": MODEL, "input": "hi", "temperature": 0, "max_output_tokens": 16,
        "include": ["message.output_text.logprobs"], "top_logprobs": 1});
    let answer = node.post("/v1/responses", &body).await.json();
    let part = &answer["output"][0]["content"][0];
    assert_eq!(part["logprobs"].as_array().unwrap().len(), tokens.len());
    let bare = node.chat("hi", json!({"max_tokens": 3})).await.json();
    assert_eq!(bare["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn a_client_that_leaves_takes_all_its_answers_along() {
    // Requirement 109.
    let node = Node::with_random_model().await;
    let body = chat_body("hi", wandering(json!({"n": 4, "max_tokens": 3000, "stream": true})));
    let request = request("POST", "/v1/chat/completions", &[], body.to_string().as_bytes());
    let mut opened = client::open(node.address, request).await;
    opened.read_until("\"index\":3").await;
    drop(opened);
    node.settled().await;
}
