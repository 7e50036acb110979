use dialog::{Event, FinishReason};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::anthropic::{ReplyOptions, parse_count};
use crate::sample::{
    answer, collected, failed, finished, frames, stamp, streamed, text, text_answer, tool_answer,
};
use crate::{Dialect, ErrorBody, Projector, Reply};

const STREAM: Reply = Reply::Anthropic(ReplyOptions { stream: true });
const BODY: Reply = Reply::Anthropic(ReplyOptions { stream: false });

#[test]
fn a_text_answer_as_a_stream() {
    insta::assert_snapshot!(streamed(&STREAM, &text_answer(FinishReason::Stop)));
}

#[test]
fn a_thinking_and_calling_answer_as_a_stream() {
    insta::assert_snapshot!(streamed(&STREAM, &tool_answer()));
}

// Requirement 112
#[test]
fn a_thinking_and_calling_answer_as_one_body() {
    let body = collected(&BODY, &tool_answer()).expect("complete");
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).expect("it serialises"));
}

// Requirement 15
#[test]
fn an_answer_says_why_it_ended() {
    let stopped = |by: Option<&str>, reason: FinishReason| {
        let mut events = vec![Event::Started { prompt_tokens: 1 }, text("a")];
        events.extend(by.map(|by| Event::StopText(by.to_owned())));
        events.push(finished(reason));
        let body = collected(&BODY, &events).expect("complete");
        (body["stop_reason"].clone(), body["stop_sequence"].clone())
    };
    let none = Value::Null;
    assert_eq!(stopped(None, FinishReason::Stop), (json!("end_turn"), none.clone()));
    assert_eq!(stopped(Some("END"), FinishReason::Stop), (json!("stop_sequence"), json!("END")));
    assert_eq!(stopped(None, FinishReason::Length), (json!("max_tokens"), none.clone()));
    assert_eq!(stopped(Some("x"), FinishReason::ToolCalls), (json!("tool_use"), none));
}

// Requirements 20 and 122
#[test]
fn a_failure_is_an_error_event_and_the_last_one() {
    let events = [Event::Started { prompt_tokens: 1 }, text("a"), failed(), text("b")];
    let frames = frames(&streamed(&STREAM, &events));
    let names: Vec<&str> = frames.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = ["message_start", "content_block_start", "content_block_delta", "error"];
    assert_eq!(names, wanted);
    let error = json!({"type": "overloaded_error", "message": "the engine went away"});
    assert_eq!(frames[3].1, json!({"type": "error", "error": error, "request_id": "req_7"}));
    assert_eq!(collected(&BODY, &events).expect_err("failed").status, 503);
    assert_eq!(collected(&BODY, &events[..2]).expect_err("not ended").status, 500);
}

// Requirement 8
#[test]
fn silence_is_broken_by_pings_behind_message_start() {
    let Projector::Stream(mut stream) = STREAM.projector(stamp()) else { panic!("a stream") };
    assert!(stream.keep_alive().starts_with(b":"));
    stream.event(&Event::Started { prompt_tokens: 1 });
    assert_eq!(stream.keep_alive(), b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
    assert!(!stream.ended());
    stream.event(&finished(FinishReason::Stop));
    assert!(stream.ended() && stream.event(&failed()).is_empty());
}

#[test]
fn refusals_have_the_dialects_statuses_and_envelope() {
    let mut denied = ErrorBody::invalid_request("x");
    denied.status = 401;
    let mut unable = ErrorBody::overloaded("x", 1);
    unable.retry = crate::Retry::Never;
    let table = [
        (ErrorBody::invalid_request("x"), 400, "invalid_request_error"),
        (denied, 401, "authentication_error"),
        (ErrorBody::model_not_found("m"), 404, "not_found_error"),
        (ErrorBody::method_not_allowed("PUT", "POST"), 405, "invalid_request_error"),
        (ErrorBody::body_too_large(1), 413, "request_too_large"),
        (ErrorBody::unsupported_media_type("text/plain"), 415, "invalid_request_error"),
        (ErrorBody::template_render_failed("x"), 422, "invalid_request_error"),
        (ErrorBody::rate_limited("x", 1), 429, "rate_limit_error"),
        (ErrorBody::internal("x"), 500, "api_error"),
        (ErrorBody::loading("m", 1), 529, "overloaded_error"),
        (ErrorBody::overloaded("x", 1), 529, "overloaded_error"),
        (unable, 503, "api_error"),
    ];
    for (error, status, kind) in table {
        let (found, body) = Dialect::Anthropic.error(&error, "req_7");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((found, &body["error"]["type"]), (status, &json!(kind)));
        assert_eq!((&body["type"], &body["request_id"]), (&json!("error"), &json!("req_7")));
        assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    // Requirement 4: agents of this dialect look for these words.
    let (_, body) =
        Dialect::Anthropic.error(&ErrorBody::context_length_exceeded("messages", 10, 20, 0), "r");
    let body = String::from_utf8(body).expect("UTF-8");
    assert!(body.contains("prompt is too long: ") && body.contains("is 10 tokens"), "{body}");
}

/// A client that has been told so goes on without a thread and sends the whole conversation; one
/// that has not would send its next words alone.
#[test]
fn threads_are_refused_in_the_words_that_clients_look_for() {
    let body = r#"{"model": "m", "max_tokens": 5, "thread": {"type": "create"},
        "messages": [{"role": "user", "content": "Hi"}]}"#;
    let refused = Dialect::Anthropic.parse(body.as_bytes()).expect_err("nothing is stored");
    assert_eq!(parse_count(body.as_bytes()).expect_err("nor for counts"), refused);
    let (status, body) = Dialect::Anthropic.error(&ErrorBody::from(&refused), "r");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let details = json!({"error_code": "thread_unsupported_request", "unsupported": ["thread"]});
    assert_eq!((status, &body["error"]["details"]), (400, &details), "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|it| it.contains("whole conversation")));
}

/// What an SDK makes of a stream; panics where an SDK raises.
fn joined(frames: &[(String, Value)]) -> Value {
    let mut message = Value::Null;
    let mut arguments = String::new();
    let mut open = None;
    let push = |at: &mut Value, piece: &Value| {
        let whole = at.as_str().expect("text").to_owned() + piece.as_str().expect("text");
        *at = whole.into();
    };
    for (place, (name, frame)) in frames.iter().enumerate() {
        assert_eq!((frame["type"].as_str(), place == 0), (Some(&**name), name == "message_start"));
        let index = frame["index"].as_u64().map(|index| index as usize);
        match name.as_str() {
            "message_start" => message = frame["message"].clone(),
            "content_block_start" => {
                let blocks = message["content"].as_array_mut().expect("blocks");
                assert_eq!((index, open), (Some(blocks.len()), None), "no gap and no overlap");
                blocks.push(frame["content_block"].clone());
                (open, arguments) = (index, String::new());
            }
            "content_block_delta" => {
                assert_eq!(index, open);
                let block = &mut message["content"][index.expect("an index")];
                let delta = &frame["delta"];
                match delta["type"].as_str().expect("a type") {
                    "text_delta" => push(&mut block["text"], &delta["text"]),
                    "thinking_delta" => push(&mut block["thinking"], &delta["thinking"]),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "input_json_delta" => {
                        arguments.push_str(delta["partial_json"].as_str().expect("text"));
                        assert_eq!(block["input"], json!({}));
                    }
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                assert_eq!(index, open.take());
                let block = &mut message["content"][index.expect("an index")];
                if block["type"] == "tool_use" {
                    block["input"] = serde_json::from_str(&arguments).expect("whole JSON");
                }
            }
            "message_delta" => {
                assert!(message["stop_reason"].is_null() && open.is_none());
                message["stop_reason"] = frame["delta"]["stop_reason"].clone();
                message["stop_sequence"] = frame["delta"]["stop_sequence"].clone();
                message["usage"] = frame["usage"].clone();
            }
            "message_stop" => assert_eq!(place, frames.len() - 1),
            other => panic!("{other}"),
        }
    }
    assert_eq!(frames.last().expect("frames").0, "message_stop");
    message
}

proptest! {
    // Equality E8
    #[test]
    fn a_stream_adds_up_to_the_one_body(events in answer()) {
        let frames = frames(&streamed(&STREAM, &events));
        prop_assert_eq!(joined(&frames), collected(&BODY, &events).expect("complete"));
    }
}
