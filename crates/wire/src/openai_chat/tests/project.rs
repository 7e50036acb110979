use dialog::{
    CacheMiss, Event, Failure, FailureKind, FinishReason, Role, Timings, TokenLogprob, Usage,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::openai_chat::{Collector, ReplyOptions, Stream};
use crate::{EventCollector, EventStream};

fn finished(reason: FinishReason) -> Event {
    let usage =
        Usage { prompt_tokens: 12, completion_tokens: 5, cached_tokens: 4, reasoning_tokens: 2 };
    let cache_miss = Some(CacheMiss { message: 1, role: Role::User });
    let timings = Timings { queue_ms: 0.5, prompt_ms: 16.0, predicted_ms: 40.0, cache_miss };
    Event::Finished { reason, usage, timings }
}

fn text(words: &str) -> Event {
    Event::Text(words.to_owned())
}

fn failed() -> Event {
    let message = "the engine went away".to_owned();
    Event::Failed(Failure { kind: FailureKind::EngineFailed, message })
}

fn tool_answer() -> Vec<Event> {
    let call = |index: u32, name: &str| Event::ToolCall {
        index,
        id: format!("call_{index}"),
        name: name.to_owned(),
    };
    vec![
        Event::Started { prompt_tokens: 12 },
        Event::Reasoning("Time?".to_owned()),
        call(0, "add"),
        Event::ToolArguments { index: 0, delta: "{\"a\":1".to_owned() },
        Event::ToolArguments { index: 0, delta: "}".to_owned() },
        call(1, "now"),
        finished(FinishReason::ToolCalls),
    ]
}

fn text_answer() -> Vec<Event> {
    let mut plain = finished(FinishReason::Stop);
    if let Event::Finished { usage, .. } = &mut plain {
        (usage.cached_tokens, usage.reasoning_tokens) = (0, 0);
    }
    vec![Event::Started { prompt_tokens: 12 }, text("One\n"), text("\"two\""), plain]
}

fn streamed(events: &[Event], include_usage: bool) -> String {
    let options = ReplyOptions { stream: true, include_usage, ..ReplyOptions::default() };
    let mut stream = Stream::new("chatcmpl-1", "sprout", 1_700_000_000, &options);
    let bytes: Vec<u8> = events.iter().flat_map(|event| stream.event(event)).collect();
    String::from_utf8(bytes).expect("UTF-8")
}

fn collected(events: &[Event]) -> Value {
    let options = ReplyOptions::default();
    let mut collector = Box::new(Collector::new("chatcmpl-1", "sprout", 1_700_000_000, &options));
    events.iter().for_each(|event| collector.event(event));
    serde_json::from_slice(&collector.finish().expect("complete")).expect("JSON")
}

/// The JSON of each frame but the last, which is checked to be `[DONE]`.
fn chunks(stream: &str) -> Vec<Value> {
    let body = stream.strip_suffix("data: [DONE]\n\n").expect("it ends well");
    let frames = body.split_terminator("\n\n");
    frames
        .map(|frame| {
            let data = frame.strip_prefix("data: ").expect("a data frame");
            assert!(!data.contains('\n'));
            serde_json::from_str(data).expect("JSON")
        })
        .collect()
}

#[test]
fn a_text_answer_as_a_stream() {
    insta::assert_snapshot!(streamed(&text_answer(), false));
}

#[test]
fn a_tool_answer_as_a_stream_with_usage() {
    insta::assert_snapshot!(streamed(&tool_answer(), true));
}

// Requirements 24 and 112
#[test]
fn answers_as_one_body() {
    let pretty =
        |events: &[Event]| serde_json::to_string_pretty(&collected(events)).expect("it serialises");
    insta::assert_snapshot!("text_body", pretty(&text_answer()));
    insta::assert_snapshot!("tool_body", pretty(&tool_answer()));
}

// Requirements 6 and 134
#[test]
fn usage_comes_only_when_asked_for_and_once() {
    let plain = streamed(&text_answer(), false);
    assert!(
        !plain.contains("usage") && chunks(&plain).iter().all(|c| c["choices"][0] != Value::Null)
    );
    let asked = chunks(&streamed(&text_answer(), true));
    let (last, earlier) = asked.split_last().expect("chunks");
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(17)));
    assert!(earlier.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
}

// Requirement 122
#[test]
fn a_failure_ends_the_stream_without_pretending_success() {
    let events = [Event::Started { prompt_tokens: 1 }, text("a"), failed(), text("b")];
    let stream = streamed(&events, true);
    let last = stream.split_terminator("\n\n").last().expect("a frame");
    assert_eq!(
        last,
        "data: {\"error\":{\"message\":\"the engine went away\",\"type\":\"server_error\",\
         \"param\":null,\"code\":\"engine_failed\"}}"
    );
    assert!(!stream.contains("[DONE]") && !stream.contains("\"b\""));
    let fresh = || Box::new(Collector::new("i", "m", 0, &ReplyOptions::default()));
    let mut collector = fresh();
    events.iter().for_each(|event| collector.event(event));
    let error = collector.finish().expect_err("failed");
    assert_eq!((error.status, error.retry_after_secs()), (503, Some(5)));
    let unfinished = fresh().finish().expect_err("not ended");
    assert_eq!((unfinished.status, unfinished.should_retry()), (500, false));
}

#[test]
fn nothing_follows_the_end() {
    let options = ReplyOptions::default();
    let mut stream = Stream::new("i", "m", 0, &options);
    assert!(!stream.ended());
    assert!(!stream.event(&finished(FinishReason::Stop)).is_empty());
    assert!(stream.ended());
    assert!(stream.event(&finished(FinishReason::Stop)).is_empty());
    assert!(stream.event(&failed()).is_empty());
    assert_eq!(stream.keep_alive(), b": keep-alive\n\n");
}

// Requirement 114
#[test]
fn rates_are_over_their_own_windows() {
    let timings = &collected(&tool_answer())["timings"];
    assert_eq!(timings["prompt_n"], 8);
    assert_eq!(timings["prompt_per_second"], 500.0);
    assert_eq!(timings["predicted_per_second"], 100.0);
}

/// The message that the deltas of a stream add up to, in the shape of the one body.
fn joined(chunks: &[Value]) -> Value {
    let mut message = json!({"role": null, "content": "", "refusal": null});
    let mut finish_reason = Value::Null;
    let push = |at: &mut Value, piece: &Value| {
        let whole = at.as_str().unwrap_or_default().to_owned() + piece.as_str().unwrap_or_default();
        *at = whole.into();
    };
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let delta = choice["delta"].as_object().expect("a delta");
        for (key, value) in delta {
            match key.as_str() {
                "tool_calls" => {
                    let call = &value[0];
                    let index = call["index"].as_u64().expect("an index") as usize;
                    if message["tool_calls"].is_null() {
                        message["tool_calls"] = json!([]);
                    }
                    let calls = message["tool_calls"].as_array_mut().expect("an array");
                    if index == calls.len() {
                        let mut call = call.clone();
                        call.as_object_mut().expect("an object").remove("index");
                        calls.push(call);
                    } else {
                        let arguments = &mut calls[index]["function"]["arguments"];
                        push(arguments, &call["function"]["arguments"]);
                    }
                }
                key => push(&mut message[key], value),
            }
        }
        if !choice["finish_reason"].is_null() {
            assert!(finish_reason.is_null(), "the finish reason comes once");
            finish_reason = choice["finish_reason"].clone();
        }
    }
    if message["content"] == "" && !message["tool_calls"].is_null() {
        message["content"] = Value::Null;
    }
    json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason})
}

prop_compose! {
    /// Words, reasoning and calls in any order, each call's arguments right behind it.
    fn answer()(
        kinds in prop::collection::vec(
            (0_u8..3, prop::collection::vec("[a-z\"\\né]{0,4}", 0..3)),
            0..8,
        ),
        reason in prop::sample::select(vec![FinishReason::Stop, FinishReason::Length]),
    ) -> Vec<Event> {
        let mut events = vec![Event::Started { prompt_tokens: 1 }];
        let mut calls = 0;
        for (kind, pieces) in kinds {
            if kind == 2 {
                let id = format!("call_{calls}");
                events.push(Event::ToolCall { index: calls, id, name: "f".to_owned() });
            }
            events.extend(pieces.into_iter().map(|piece| match kind {
                0 => Event::Text(piece),
                1 => Event::Reasoning(piece),
                _ => Event::ToolArguments { index: calls, delta: piece },
            }));
            calls += u32::from(kind == 2);
        }
        events.push(finished(if calls > 0 { FinishReason::ToolCalls } else { reason }));
        events
    }
}

proptest! {
    // Equality E8
    #[test]
    fn a_stream_adds_up_to_the_one_body(events in answer(), include_usage: bool) {
        let chunks = chunks(&streamed(&events, include_usage));
        let body = collected(&events);
        let mut message = joined(&chunks);
        if message["message"]["reasoning_content"] == "" {
            message["message"].as_object_mut().expect("an object").remove("reasoning_content");
        }
        prop_assert_eq!(&message, &body["choices"][0]);
        let timed: Vec<&Value> = chunks.iter().filter_map(|chunk| chunk.get("timings")).collect();
        prop_assert_eq!(timed, vec![&body["timings"]]);
        if include_usage {
            prop_assert_eq!(&chunks[chunks.len() - 1]["usage"], &body["usage"]);
        }
    }
}

/// Chunks of a stream of two answers.
fn two_choices(events: &[(u32, Event)]) -> Vec<Value> {
    let options = ReplyOptions { stream: true, include_usage: true, choices: 2 };
    let mut stream = Stream::new("i", "m", 0, &options);
    let bytes = events.iter().flat_map(|(choice, event)| stream.choice(*choice, event)).collect();
    chunks(&String::from_utf8(bytes).expect("UTF-8"))
}

#[test]
fn several_answers_are_told_by_their_index_and_end_together() {
    let done = finished(FinishReason::Stop);
    let events = [
        (0, Event::Started { prompt_tokens: 12 }),
        (0, text("a")),
        (1, Event::Started { prompt_tokens: 12 }),
        (0, done.clone()),
        (1, text("b")),
        (1, done.clone()),
        (1, text("never")),
    ];
    let chunks = two_choices(&events);
    let told: Vec<(u64, &Value)> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0))
        .map(|choice| (choice["index"].as_u64().unwrap(), &choice["delta"]["content"]))
        .collect();
    let words: Vec<(u64, Option<&str>)> =
        told.iter().map(|(index, words)| (*index, words.as_str())).collect();
    let want = [(0, Some("")), (0, Some("a")), (1, Some("")), (0, None), (1, Some("b")), (1, None)];
    assert_eq!(words, want);
    // The prompt counts once, and so do the tokens that its cache supplied.
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(12), &json!(10)));

    let options = ReplyOptions { choices: 2, ..ReplyOptions::default() };
    let mut collector = Box::new(Collector::new("i", "m", 0, &options));
    events.iter().for_each(|(choice, event)| collector.choice(*choice, event));
    let body: Value = serde_json::from_slice(&collector.finish().unwrap()).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "a");
    assert_eq!((&body["choices"][1]["index"], &body["usage"]), (&json!(1), usage));
}

#[test]
fn logprobs_come_with_their_words() {
    let token = |bytes: &[u8]| TokenLogprob { bytes: bytes.to_vec(), logprob: -1.0, top: vec![] };
    let events = [
        Event::Started { prompt_tokens: 12 },
        Event::Logprobs(vec![token(&[0xc3])]),
        Event::Logprobs(vec![token(&[0xa9])]),
        text("é"),
        Event::Logprobs(vec![token(b"x")]),
        finished(FinishReason::Stop),
    ];
    let streamed = chunks(&streamed(&events, false));
    let counts: Vec<_> = streamed
        .iter()
        .map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(counts, [0, 2, 1]);
    let body = collected(&events);
    let all = body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<_> = all.iter().map(|token| &token["bytes"]).collect();
    assert_eq!(bytes, [&json!([0xc3]), &json!([0xa9]), &json!([120])]);
}
