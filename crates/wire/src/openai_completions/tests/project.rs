use dialog::{Event, FinishReason};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::openai_completions::ReplyOptions;
use crate::sample::{answer, collected, failed, frames, streamed, text, text_answer};
use crate::{Dialect, Reply};

fn stream(include_usage: bool) -> Reply {
    Reply::OpenaiCompletions(ReplyOptions { stream: true, include_usage, choices: 1 })
}

fn body() -> Reply {
    Reply::OpenaiCompletions(ReplyOptions::default())
}

/// The frames before `[DONE]`.
fn chunks(stream: &str) -> Vec<Value> {
    let body = stream.strip_suffix("data: [DONE]\n\n").expect("it ends well");
    frames(body).into_iter().map(|(_, payload)| payload).collect()
}

#[test]
fn an_answer_as_a_stream_with_usage() {
    insta::assert_snapshot!(streamed(&stream(true), &text_answer(FinishReason::Length)));
}

#[test]
fn an_answer_as_one_body() {
    let body = collected(&body(), &text_answer(FinishReason::Stop)).expect("complete");
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).expect("it serialises"));
}

// Requirement 122
#[test]
fn a_failure_ends_the_stream_without_pretending_success() {
    let events = [Event::Started { prompt_tokens: 1 }, text("a"), failed(), text("b")];
    let stream = streamed(&stream(true), &events);
    let (_, last) = frames(&stream).pop().expect("a frame");
    assert_eq!(last["error"]["code"], "engine_failed");
    assert!(!stream.contains("[DONE]") && !stream.contains("\"b\""));
    assert_eq!(collected(&body(), &events).expect_err("failed").status, 503);
    let said: Vec<&str> = stream.split_terminator("\n\n").collect();
    let shows = |frame: &&&str| Dialect::OpenaiCompletions.shows_words(frame.as_bytes());
    assert_eq!(said.iter().filter(shows).count(), 1);
}

proptest! {
    // Equality E8
    #[test]
    fn a_stream_adds_up_to_the_one_body(events in answer(), include_usage: bool) {
        let chunks = chunks(&streamed(&stream(include_usage), &events));
        let body = collected(&body(), &events).expect("complete");
        let choices: Vec<&Value> = chunks.iter().filter_map(|c| c["choices"].get(0)).collect();
        let texts: String = choices.iter().filter_map(|c| c["text"].as_str()).collect();
        prop_assert_eq!(&body["choices"][0]["text"], &Value::String(texts));
        let reasons: Vec<&Value> =
            choices.iter().map(|c| &c["finish_reason"]).filter(|r| !r.is_null()).collect();
        prop_assert_eq!(reasons, vec![&body["choices"][0]["finish_reason"]]);
        let usages: Vec<&Value> =
            chunks.iter().filter_map(|c| c.get("usage")).filter(|u| !u.is_null()).collect();
        // Requirement 134
        prop_assert_eq!(usages, if include_usage { vec![&body["usage"]] } else { vec![] });
        prop_assert_eq!(chunks.iter().any(|c| c["choices"] == json!([])), include_usage);
    }
}
