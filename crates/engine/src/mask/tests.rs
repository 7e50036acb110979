use super::*;

const STOP: u32 = 257;
const CALL: u32 = 258;

/// A token for each byte, one for `ab`, and two that no text spells.
fn vocabulary() -> Vocabulary {
    let mut bytes: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    bytes.extend([b"ab".to_vec(), b"<|stop|>".to_vec(), b"<call>".to_vec()]);
    Vocabulary { bytes, specials: vec![STOP, CALL] }
}

fn compiled(grammar: &str) -> Result<GrammarState, String> {
    let compiler = Compiler::start(vocabulary());
    let _ticket = compiler.compile(7, Grammar(grammar.to_owned())).expect("an empty line");
    drop(compiler.jobs);
    let done = compiler.done.recv().expect("an outcome");
    assert_eq!(done.id, 7);
    done.result
}

fn allowed(state: &mut GrammarState) -> Vec<u32> {
    let mask = state.mask(&[STOP]);
    (0..400).filter(|id| mask.allows(*id)).collect()
}

fn accept_text(state: &mut GrammarState, text: &str) {
    text.bytes().for_each(|byte| state.accept(u32::from(byte), &[STOP]));
}

#[test]
fn a_mask_holds_the_tokens_that_stay_in_the_language() {
    let mut state = compiled(r#"start: "ab" "c"? | "b""#).unwrap();
    // `a`, `b`, and the token that spells two of its bytes.
    assert_eq!(allowed(&mut state), [97, 98, 256]);
    state.accept(256, &[STOP]);
    assert_eq!(allowed(&mut state), [99, STOP], "it may end here, and it may go on");
    accept_text(&mut state, "c");
    assert_eq!(allowed(&mut state), [STOP], "a finished grammar allows nothing but the end");
    state.accept(STOP, &[STOP]);
    assert!(!state.failed());
}

#[test]
fn every_stop_token_of_the_request_ends_a_whole_answer() {
    let mut state = compiled(r#"start: "a""#).unwrap();
    assert!(!state.mask(&[STOP, CALL]).allows(STOP));
    accept_text(&mut state, "a");
    let mask = state.mask(&[STOP, CALL, 100_000]);
    assert!(mask.allows(STOP) && mask.allows(CALL) && !mask.allows(97));
}

#[test]
fn special_tokens_are_named_by_their_ids_and_never_spelled() {
    let mut state = compiled("start: <[258]> /.*/").unwrap();
    assert_eq!(allowed(&mut state), [CALL]);
    state.accept(CALL, &[STOP]);
    let next = allowed(&mut state);
    assert!(next.contains(&97) && next.contains(&STOP) && !next.contains(&CALL));
    // Nor does the spelling of one, byte by byte, stand for the token.
    let mut state = compiled("start: <[258]>").unwrap();
    assert!(!allowed(&mut state).contains(&u32::from(b'<')));
}

#[test]
fn a_character_may_be_spelled_byte_by_byte() {
    let mut state = compiled("start: \"é\"").unwrap();
    assert_eq!(allowed(&mut state), [0xc3]);
    state.accept(0xc3, &[STOP]);
    assert_eq!(allowed(&mut state), [0xa9]);
}

#[test]
fn a_token_outside_the_language_fails_the_request() {
    let mut state = compiled(r#"start: "a""#).unwrap();
    accept_text(&mut state, "b");
    assert!(state.failed());
    assert!(allowed(&mut state).is_empty());
}

#[test]
fn a_grammar_is_compiled_once_and_read_from_its_beginning_each_time() {
    let compiler = Compiler::start(vocabulary());
    for id in 0..3 {
        let _ticket = compiler.compile(id, Grammar(r#"start: "ab""#.to_owned()));
        let Compiled { id: done, result, .. } = compiler.done.recv().unwrap();
        let mut state = result.unwrap();
        assert_eq!((done, allowed(&mut state)), (id, vec![97, 256]));
        accept_text(&mut state, "a");
    }
}

#[test]
fn a_grammar_that_cannot_be_compiled_says_why_in_a_line() {
    for (grammar, word) in [
        ("start: nowhere", "nowhere"),
        ("start: <[999]>", "range"),
        ("start: /(?=a)b/", "look-around"),
        (r#"start: %json {"type": "string", "format": "colour"}"#, "colour"),
    ] {
        let Err(reason) = compiled(grammar) else { panic!("{grammar}: compiled") };
        assert!(reason.contains(word) && !reason.contains('\n'), "{grammar}: {reason}");
    }
}

/// What is too large is refused by the limits, and what is not is served; nothing panics.
#[test]
fn huge_grammars_end_in_a_word() {
    let deep = format!("{}true{}", r#"{"items":"#.repeat(120), "}".repeat(120));
    let wide: Vec<String> = (0..5000).map(|at| format!(r#""p{at}":{{"type":"string"}}"#)).collect();
    let wide = format!(r#"{{"type":"object","properties":{{{}}}}}"#, wide.join(","));
    for schema in [
        r#"{"type":"string","maxLength":1000000000}"#,
        r#"{"type":"string","minLength":1000000000}"#,
        r#"{"type":"array","minItems":1000000000}"#,
        r#"{"type":"array","maxItems":1000000000}"#,
        r#"{"type":"object","minProperties":1000000000}"#,
        r#"{"type":"string","pattern":"^(([a-z]{1,99}){1,99}){1,99}$"}"#,
        r#"{"type":"string","pattern":"(a|b|ab)*c(a|b|ab)*d(a|b|ab){50}"}"#,
        r#"{"type":"number","multipleOf":0.0000000000000001}"#,
        r##"{"anyOf":[{"type":"array","items":{"$ref":"#"}},{"$ref":"#"}]}"##,
        &deep,
        &wide,
    ] {
        let mut state = match compiled(&format!("start: %json {schema}")) {
            Ok(state) => state,
            Err(reason) => {
                assert!(!reason.is_empty() && !reason.contains('\n'), "{schema}: {reason}");
                continue;
            }
        };
        // It begins with whatever the schema begins with, and goes on or is given up.
        let first = ["[", "\"", "{", "1"].into_iter().find(|text| {
            let mask = state.mask(&[STOP]);
            mask.allows(u32::from(text.as_bytes()[0]))
        });
        accept_text(&mut state, first.unwrap_or_else(|| panic!("{schema}: nothing to begin with")));
        assert!(state.failed() || !allowed(&mut state).is_empty(), "{schema}");
    }
}

/// Whoever asks and leaves costs nothing, and takes a place in the line at most.
#[test]
fn what_nobody_waits_for_is_not_compiled() {
    let (jobs, inbox) = sync_channel(3);
    let (outbox, done) = channel();
    let compiler = Compiler { jobs, done };
    let ask = |id| compiler.compile(id, Grammar(r#"start: "a""#.to_owned()));
    drop(ask(1).expect("a place"));
    let kept = ask(2).expect("a place");
    drop(ask(1).expect("a place"));
    assert!(ask(3).is_none(), "the line is full");
    let Compiler { jobs, done } = compiler;
    drop(jobs);
    compile_all(vocabulary(), &inbox, &outbox);
    let only = done.try_recv().expect("an outcome");
    assert!(only.id == 2 && only.is_wanted() && done.try_recv().is_err());
    drop(kept);
    assert!(!only.is_wanted());
}
