use dialog::{Event, FinishReason};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::openai_responses::{ReplyOptions, parse};
use crate::sample::{answer, collected, failed, frames, streamed, text, text_answer, tool_answer};
use crate::{Dialect, Reply};

fn options(stream: bool) -> ReplyOptions {
    let body = json!({
        "model": "sprout", "input": "Hi", "stream": stream, "instructions": "Be brief.",
        "max_output_tokens": 50, "metadata": {"k": "v"}, "reasoning": {"effort": "low"},
        "tools": [{"type": "function", "name": "add", "parameters": {"type": "object"}}],
    });
    parse(body.to_string().as_bytes()).expect("accepted").1
}

fn reply(stream: bool) -> Reply {
    Reply::OpenaiResponses(Box::new(options(stream)))
}

#[test]
fn a_text_answer_as_a_stream() {
    insta::assert_snapshot!(streamed(&reply(true), &text_answer(FinishReason::Length)));
}

#[test]
fn a_thinking_and_calling_answer_as_a_stream() {
    insta::assert_snapshot!(streamed(&reply(true), &tool_answer()));
}

// Requirement 112
#[test]
fn a_thinking_and_calling_answer_as_one_body() {
    let body = collected(&reply(false), &tool_answer()).expect("complete");
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).expect("it serialises"));
}

// Requirement 122
#[test]
fn a_failure_is_a_failed_response_and_the_last_event() {
    let events = [Event::Started { prompt_tokens: 1 }, text("a"), failed(), text("b")];
    let frames = frames(&streamed(&reply(true), &events));
    let (name, last) = frames.last().expect("frames");
    assert_eq!((name.as_str(), &last["response"]["status"]), ("response.failed", &json!("failed")));
    let error = json!({"code": "server_error", "message": "the engine went away"});
    assert_eq!(last["response"]["error"], error);
    let item = &last["response"]["output"][0];
    assert_eq!((&item["status"], &item["content"][0]["text"]), (&json!("incomplete"), &json!("a")));
    assert_eq!(collected(&reply(false), &events).expect_err("failed").status, 503);
}

// Requirement 10
#[test]
fn an_error_event_goes_on_where_the_stream_broke_off() {
    let whole = streamed(&reply(true), &text_answer(FinishReason::Stop));
    let seen = &whole[..whole.find("response.output_text.done").expect("done") - 7];
    let error = crate::ErrorBody::engine_failed("gone", 5);
    let event = Dialect::OpenaiResponses.error_event(&error, "r", seen.as_bytes());
    let event = String::from_utf8(event).expect("UTF-8");
    let (name, payload) = frames(&event).remove(0);
    assert_eq!((name.as_str(), &payload["type"]), ("error", &json!("error")));
    assert_eq!(payload["sequence_number"], frames(seen).len());
    assert_eq!((&payload["message"], &payload["code"]), (&json!("gone"), &json!("engine_failed")));
    assert!(payload["param"].is_null() && payload["error"]["message"] == "gone");
}

/// What an SDK makes of a stream's items; panics where the order is wrong.
fn joined(frames: &[(String, Value)]) -> Value {
    let mut items: Vec<Value> = Vec::new();
    let mut said = String::new();
    let mut open = None;
    for (number, (name, frame)) in frames.iter().enumerate() {
        assert_eq!((&frame["type"], &frame["sequence_number"]), (&json!(name), &json!(number)));
        let index = frame["output_index"].as_u64().map(|index| index as usize);
        let kind = name.strip_prefix("response.").expect("a response event");
        match kind {
            "created" | "in_progress" | "completed" | "incomplete" => {
                assert!(frame["response"].is_object() && open.is_none());
                continue;
            }
            "output_item.added" => {
                // Requirement 12
                assert_eq!((index, open), (Some(items.len()), None));
                assert_eq!(frame["item"]["status"], "in_progress");
                (open, said) = (index, String::new());
                items.push(frame["item"].clone());
                continue;
            }
            _ => assert_eq!(index, open),
        }
        let item = &items[index.expect("an index")];
        if kind != "output_item.done" {
            assert_eq!(frame["item_id"], item["id"]);
        }
        match kind {
            "content_part.added" => assert_eq!(frame["part"]["text"], ""),
            "content_part.done" => assert_eq!(frame["part"]["text"], *said),
            "output_item.done" => {
                let done = &frame["item"];
                let words = match done["type"].as_str() {
                    Some("function_call") => &done["arguments"],
                    _ => &done["content"][0]["text"],
                };
                assert_eq!((words, &done["id"]), (&json!(said), &item["id"]));
                items[index.expect("an index")] = done.clone();
                open = None;
            }
            "function_call_arguments.done" => assert_eq!(frame["arguments"], *said),
            kind if kind.ends_with(".done") => assert_eq!(frame["text"], *said),
            _ => said.push_str(frame["delta"].as_str().expect("a delta")),
        }
    }
    Value::Array(items)
}

proptest! {
    // Equality E8
    #[test]
    fn a_stream_adds_up_to_the_one_body(events in answer()) {
        let frames = frames(&streamed(&reply(true), &events));
        let body = collected(&reply(false), &events).expect("complete");
        let (name, last) = frames.last().expect("frames");
        prop_assert_eq!(&last["response"], &body);
        prop_assert_eq!(name, &format!("response.{}", body["status"].as_str().expect("a status")));
        prop_assert_eq!(joined(&frames), body["output"].clone());
    }
}
