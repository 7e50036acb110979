//! Answers to try the dialects on, and what all of them are held to.

use dialog::{Event, Failure, FailureKind, FinishReason, Timings, Usage};
use proptest::prelude::*;
use serde_json::Value;

use crate::{ErrorBody, Projector, Reply, Stamp};

pub(crate) fn stamp() -> Stamp {
    Stamp {
        nonce: "a1".to_owned(),
        request_id: "req_7".to_owned(),
        model: "sprout".to_owned(),
        created: 1_700_000_000,
    }
}

pub(crate) fn finished(reason: FinishReason) -> Event {
    let usage =
        Usage { prompt_tokens: 12, completion_tokens: 5, cached_tokens: 4, reasoning_tokens: 2 };
    let timings = Timings { queue_ms: 0.5, prompt_ms: 16.0, predicted_ms: 40.0, cache_miss: None };
    Event::Finished { reason, usage, timings }
}

pub(crate) fn failed() -> Event {
    let message = "the engine went away".to_owned();
    Event::Failed(Failure { kind: FailureKind::EngineFailed, message })
}

pub(crate) fn text(words: &str) -> Event {
    Event::Text(words.to_owned())
}

/// Plain words, ended by `reason`, nothing cached and no reasoning.
pub(crate) fn text_answer(reason: FinishReason) -> Vec<Event> {
    let usage = Usage { prompt_tokens: 12, completion_tokens: 5, ..Usage::default() };
    let finished = Event::Finished { reason, usage, timings: Timings::default() };
    vec![Event::Started { prompt_tokens: 12 }, text("One\n"), text(""), text("\"two\""), finished]
}

/// Reasoning, words, a call in pieces and a call without arguments.
pub(crate) fn tool_answer() -> Vec<Event> {
    let call = |index: u32, name: &str| Event::ToolCall {
        index,
        id: format!("call_{index}"),
        name: name.to_owned(),
    };
    vec![
        Event::Started { prompt_tokens: 12 },
        Event::Reasoning("Time".to_owned()),
        Event::Reasoning("?".to_owned()),
        text("So:"),
        call(0, "add"),
        Event::ToolArguments { index: 0, delta: "{\"a\":1".to_owned() },
        Event::ToolArguments { index: 0, delta: "}".to_owned() },
        call(1, "now"),
        finished(FinishReason::ToolCalls),
    ]
}

pub(crate) fn streamed(reply: &Reply, events: &[Event]) -> String {
    let Projector::Stream(mut stream) = reply.clone().projector(stamp()) else {
        panic!("{reply:?} is no stream")
    };
    let bytes: Vec<u8> = events.iter().flat_map(|event| stream.event(event)).collect();
    String::from_utf8(bytes).expect("UTF-8")
}

pub(crate) fn collected(reply: &Reply, events: &[Event]) -> Result<Value, ErrorBody> {
    let Projector::Body(mut body) = reply.clone().projector(stamp()) else {
        panic!("{reply:?} is a stream")
    };
    events.iter().for_each(|event| body.event(event));
    body.finish().map(|body| serde_json::from_slice(&body).expect("JSON"))
}

/// Names and payloads of a stream's frames; names are empty where a dialect has none.
pub(crate) fn frames(stream: &str) -> Vec<(String, Value)> {
    let frame = |frame: &str| {
        let (name, data) = match frame.split_once('\n') {
            Some((name, data)) => (name.strip_prefix("event: ").expect("a name"), data),
            None => ("", frame),
        };
        let data = data.strip_prefix("data: ").expect("a payload");
        assert!(!data.contains(['\n', '\r']));
        (name.to_owned(), serde_json::from_str(data).expect("JSON"))
    };
    assert!(stream.ends_with("\n\n"));
    stream.split_terminator("\n\n").map(frame).collect()
}

prop_compose! {
    /// JSON text of an object, in pieces.
    fn arguments()(
        value in prop::option::of("[a-z\"\\\\né]{0,6}"),
        cuts in prop::collection::vec(0_usize..40, 0..3),
    ) -> Vec<String> {
        let Some(value) = value else { return Vec::new() };
        let json = serde_json::json!({ "k": value, "n": 1.0 }).to_string();
        let mut cuts = cuts;
        cuts.retain(|cut| json.is_char_boundary(*cut));
        cuts.extend([0, json.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|ends| json[ends[0]..ends[1]].to_owned()).collect()
    }
}

prop_compose! {
    /// Words, reasoning and calls in any order, each call's arguments right behind it.
    pub(crate) fn answer()(
        kinds in prop::collection::vec(
            (0_u8..3, prop::collection::vec("[a-z\"\\né]{0,4}", 0..3), arguments()),
            0..8,
        ),
        stopped in prop::option::of("[a-z]{1,3}"),
        length: bool,
    ) -> Vec<Event> {
        let mut events = vec![Event::Started { prompt_tokens: 12 }];
        let mut calls = 0;
        for (kind, pieces, arguments) in kinds {
            match kind {
                0 => events.extend(pieces.into_iter().map(Event::Text)),
                1 => events.extend(pieces.into_iter().map(Event::Reasoning)),
                _ => {
                    let (index, id, name) = (calls, format!("call_{calls}"), "f".to_owned());
                    events.push(Event::ToolCall { index, id, name });
                    let piece = |delta| Event::ToolArguments { index, delta };
                    events.extend(arguments.into_iter().map(piece));
                    calls += 1;
                }
            }
        }
        let reason = match length {
            _ if calls > 0 => FinishReason::ToolCalls,
            true => FinishReason::Length,
            false => FinishReason::Stop,
        };
        events.extend(stopped.filter(|_| reason == FinishReason::Stop).map(Event::StopText));
        events.push(finished(reason));
        events
    }
}
