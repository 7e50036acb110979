use dialog::{GenerateRequest, Message, Prompt, Role};
use model::gguf::write::{Header, NewValue};

use super::*;
use crate::child::link::LoadCode;

const TEMPLATE: &str = "\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
";

/// The file of a model without weights, changed by a test before it is written.
fn file(change: impl FnOnce(&mut Header)) -> tempfile::NamedTempFile {
    let mut vocabulary = testkit::vocabulary();
    vocabulary.push("hi".into());
    let types = vocabulary.iter().map(|token| if token.starts_with("<|") { 3 } else { 1 });
    let mut header = Header::new();
    header.put("general.architecture", "qwen3");
    header.put("tokenizer.ggml.pre", "qwen2");
    header.put("tokenizer.ggml.token_type", NewValue::I32s(types.collect()));
    header.put("tokenizer.ggml.tokens", NewValue::Strings(vocabulary));
    header.put("tokenizer.ggml.merges", NewValue::Strings(vec!["h i".into()]));
    header.put("tokenizer.ggml.eos_token_id", NewValue::U32(testkit::END_OF_TURN));
    header.put("tokenizer.chat_template", TEMPLATE);
    header.put("general.sampling.temp", NewValue::F32(0.25));
    header.put("general.sampling.top_k", NewValue::U32(20));
    change(&mut header);
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    std::fs::write(file.path(), header.bytes()).unwrap();
    file
}

#[test]
fn a_gguf_brings_its_tokenizer_template_ends_and_defaults() {
    let file = file(|header| header.put("tokenizer.ggml.model", "gpt2"));
    let text = read(file.path()).unwrap();
    // Requirement 107: the end of the text as well as that of the turn.
    assert_eq!(text.stop_tokens, [testkit::END_OF_TURN, 258]);
    assert_eq!((text.defaults.temperature, text.defaults.top_k), (Some(0.25), Some(20)));
    let chat = Prompt::Chat(vec![Message::text(Role::User, "hi")]);
    let prepared = text.prepare(&GenerateRequest::new("m", chat)).unwrap();
    let mut expected = vec![256];
    expected.extend(testkit::byte_tokens("user\n"));
    expected.extend([259, 257]);
    expected.extend(testkit::byte_tokens("\n"));
    expected.push(256);
    expected.extend(testkit::byte_tokens("assistant\n"));
    assert_eq!(prepared.tokens, expected);
}

#[test]
fn a_tokenizer_of_another_kind_is_refused_by_its_name() {
    let file = file(|header| header.put("tokenizer.ggml.model", "llama"));
    let failure = read(file.path()).unwrap_err();
    assert_eq!(failure.code, LoadCode::BadModelFile);
    assert!(failure.message.contains("`llama`"), "{failure}");
}

#[test]
fn what_is_no_gguf_is_a_bad_file_named_without_its_place() {
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    std::fs::write(file.path(), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let failure = read(file.path()).unwrap_err();
    assert_eq!(failure.code, LoadCode::BadModelFile);
    let directory = file.path().parent().unwrap().display().to_string();
    assert!(!failure.message.contains(&directory), "{failure}");
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Header), part: &str) {
    let file = file(|header| {
        header.put("tokenizer.ggml.model", "gpt2");
        change(header);
    });
    let failure = read(file.path()).unwrap_err();
    assert_eq!(failure.code, LoadCode::BadModelFile);
    assert!(failure.message.contains(part), "`{failure}` does not say `{part}`");
}

// Bad file 109
#[test]
fn lists_that_contradict_each_other_are_refused() {
    let list = |key: &'static str, count: i32| {
        move |header: &mut Header| header.put(key, NewValue::I32s((0..count).collect()))
    };
    refused(list("tokenizer.ggml.scores", 7), "tokenizer.ggml.scores: expected 260 entries");
    for key in ["eot_token_id", "bos_token_id", "padding_token_id", "unknown_token_id"] {
        let key = format!("tokenizer.ggml.{key}");
        let expected = format!("{key}: expected the id of one of 260 tokens, found 260");
        refused(|header| header.put(&key, NewValue::U32(260)), &expected);
    }
    // An id of another type, and one too few.
    refused(
        |header| header.put("tokenizer.ggml.eot_token_id", "end"),
        "tokenizer.ggml.eot_token_id: expected a whole number",
    );
}

/// The tokenizer's lists themselves, which `file` gives in good order.
fn vocabulary(
    change: impl FnOnce(&mut Vec<String>, &mut Vec<i32>, &mut Vec<String>),
) -> tempfile::NamedTempFile {
    let (mut tokens, mut merges) = (testkit::vocabulary(), vec!["h i".to_owned()]);
    tokens.push("hi".into());
    let mut types = vec![1; tokens.len()];
    change(&mut tokens, &mut types, &mut merges);
    let mut header = Header::new();
    header.put("general.architecture", "qwen3");
    header.put("tokenizer.ggml.model", "gpt2");
    header.put("tokenizer.ggml.pre", "qwen2");
    header.put("tokenizer.ggml.tokens", NewValue::Strings(tokens));
    header.put("tokenizer.ggml.token_type", NewValue::I32s(types));
    header.put("tokenizer.ggml.merges", NewValue::Strings(merges));
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    std::fs::write(file.path(), header.bytes()).unwrap();
    file
}

// Bad file 109
#[test]
fn vocabularies_that_make_no_sense_are_refused() {
    type Change = fn(&mut Vec<String>, &mut Vec<i32>, &mut Vec<String>);
    let cases: [(Change, &str); 5] = [
        (|_, types, _| types.truncate(9), "token_type: expected 260 entries, one a token, found 9"),
        (|tokens, _, _| tokens[7] = "!".into(), "is spelled"),
        (|_, _, merges| merges.push("h".into()), "is no pair of tokens"),
        (|_, _, merges| merges.push("zz q".into()), "zz"),
        (|_, _, merges| merges.push("a b".into()), "ab"),
    ];
    for (change, part) in cases {
        let file = vocabulary(change);
        let failure = read(file.path()).err().unwrap_or_else(|| panic!("accepted: {part}"));
        assert_eq!(failure.code, LoadCode::BadModelFile);
        assert!(failure.message.contains(part), "`{failure}` does not say `{part}`");
    }
    assert!(read(vocabulary(|_, _, _| {}).path()).is_ok());
}
