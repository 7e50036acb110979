use dialog::{Event, FinishReason, Timings, Usage};

use super::{Tally, usage_comment, usage_object};
use crate::sample::{stamp, text};
use crate::{Dialect, Projector};

const USED: Usage =
    Usage { prompt_tokens: 40, completion_tokens: 9, cached_tokens: 32, reasoning_tokens: 3 };

fn body(dialect: Dialect, stream: bool) -> String {
    let prompt = match dialect {
        Dialect::OpenaiCompletions | Dialect::OpenaiResponses => "\"Hi\"",
        Dialect::OpenaiChat | Dialect::Anthropic => "[{\"role\": \"user\", \"content\": \"Hi\"}]",
    };
    let field = dialect.prompt_field();
    // A tool whose schema has a field of that name is echoed by one dialect.
    let schema = r#"{"type":"object","properties":{"usage":{"output_tokens":1}}}"#;
    let tools = match dialect {
        Dialect::OpenaiResponses => {
            format!(r#","tools":[{{"type":"function","name":"t","parameters":{schema}}}]"#)
        }
        _ => String::new(),
    };
    let options = match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiCompletions if stream => {
            r#","stream_options":{"include_usage":true}"#
        }
        _ => "",
    };
    format!(
        r#"{{"model":"m","max_tokens":5,"stream":{stream},"{field}":{prompt}{tools}{options}}}"#
    )
}

/// An answer as a node tells it.
fn answer(dialect: Dialect, stream: bool) -> Vec<u8> {
    let (_, reply) = dialect.parse(body(dialect, stream).as_bytes()).expect("accepted");
    let finished =
        Event::Finished { reason: FinishReason::Stop, usage: USED, timings: Timings::default() };
    let words = text("say \"usage\":{\"prompt_tokens\":1,\"input_tokens\":1}} now");
    let started = Event::Started { prompt_tokens: USED.prompt_tokens };
    let events = [started, words, finished];
    match reply.projector(stamp()) {
        Projector::Stream(mut stream) => events.iter().flat_map(|e| stream.event(e)).collect(),
        Projector::Body(mut body) => {
            events.iter().for_each(|event| body.event(event));
            body.finish().expect("an answer")
        }
    }
}

fn tallied(dialect: Dialect, stream: bool, bytes: &[u8], size: usize) -> Option<Usage> {
    let mut tally = Tally::new(dialect, stream);
    bytes.chunks(size).for_each(|piece| tally.push(piece));
    tally.usage()
}

// Requirement 113
#[test]
fn every_dialect_tells_what_it_used() {
    for dialect in Dialect::ALL {
        for stream in [false, true] {
            let bytes = answer(dialect, stream);
            for size in [1, 7, 100, bytes.len()] {
                let shown = String::from_utf8_lossy(&bytes);
                let usage = tallied(dialect, stream, &bytes, size);
                assert_eq!(usage, Some(USED), "{dialect:?} {stream} {size}\n{shown}");
            }
        }
    }
}

#[test]
fn a_comment_tells_what_a_stream_keeps_to_itself() {
    let first = Usage { prompt_tokens: 40, ..Usage::default() };
    let stream = format!(
        "{}data: {{\"choices\":[],\"usage\":null}}\n\n{}data: [DONE]\n\n",
        usage_comment(&first),
        usage_comment(&USED)
    );
    for dialect in Dialect::ALL {
        assert_eq!(tallied(dialect, true, stream.as_bytes(), 3), Some(USED));
        let begun = usage_comment(&first);
        assert_eq!(tallied(dialect, true, begun.as_bytes(), 100), Some(first));
    }
}

#[test]
fn only_the_answers_own_usage_counts() {
    let usage = |json: &str, depth| {
        let found = usage_object(json.as_bytes(), depth)?;
        Some(String::from_utf8_lossy(found).into_owned())
    };
    assert_eq!(usage(r#"{"usage": {"a":{}}, "x":"}"}"#, 1).as_deref(), Some(r#"{"a":{}}"#));
    assert_eq!(usage(r#"{"input":{"usage":{"a":1}},"x":[]}"#, 1), None);
    assert_eq!(
        usage(r#"{"usage":{"a":1},"input":{"usage":{"b":2}}}"#, 1).as_deref(),
        Some(r#"{"a":1}"#)
    );
    assert_eq!(usage(r#"{"message":{"usage":{"a":1}}}"#, 2).as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(usage(r#"{"message":{"usage":{"a":1}}}"#, 1), None);
    assert_eq!(usage(r#"{"usage":null}"#, 1), None);
    assert_eq!(usage(r#"{"usage":{"a":1"#, 1), None);
    assert_eq!(usage("", 1), None);
    assert_eq!(usage(r#""usage":{}"#, 1), None);
}

#[test]
fn what_is_no_answer_used_nothing() {
    for dialect in Dialect::ALL {
        assert_eq!(tallied(dialect, false, br#"{"error":{"message":"m"}}"#, 5), None);
        assert_eq!(tallied(dialect, true, b"data: {}\n\n", 5), None);
        assert_eq!(tallied(dialect, true, b": usage prompt=x\n\n", 5), None);
    }
}

#[test]
fn an_endless_line_is_let_go() {
    let mut tally = Tally::new(Dialect::OpenaiChat, true);
    for _ in 0..20 {
        tally.push(&[b'x'; 1 << 20]);
    }
    assert!(tally.held.capacity() <= super::LIMIT_BYTES);
    tally.push(b"\ndata: {\"usage\":{\"prompt_tokens\":3}}\n");
    assert_eq!(tally.usage().map(|usage| usage.prompt_tokens), Some(3));
}
