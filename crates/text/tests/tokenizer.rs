//! Ids as the reference tokenizer gives them, from either form of a vocabulary.

use serde_json::Value;
use text::{Specials, TextError, Tokenizer, Vocabulary};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("the fixture is in the repository")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(&fixture("tokenizer.json")).expect("the fixture is in order")
}

/// The arrays that a GGUF file of the fixture's tokenizer would hold.
fn vocabulary(pre: &str) -> Vocabulary {
    let json: Value = serde_json::from_slice(&fixture("tokenizer.json")).expect("JSON");
    let mut tokens = Vec::new();
    let mut put = |id: &Value, token: &str, kind: i32| {
        let id = id.as_u64().expect("an id") as usize;
        tokens.resize(tokens.len().max(id + 1), (String::new(), 5));
        tokens[id] = (token.to_owned(), kind);
    };
    for (token, id) in json["model"]["vocab"].as_object().expect("an object") {
        put(id, token, 1);
    }
    for added in json["added_tokens"].as_array().expect("an array") {
        let kind = if added["special"] == true { 3 } else { 4 };
        put(&added["id"], added["content"].as_str().expect("a string"), kind);
    }
    let (tokens, token_types) = tokens.into_iter().unzip();
    let merges = json["model"]["merges"].as_array().expect("an array").iter();
    let merges = merges.map(|pair| {
        let [left, right] = [&pair[0], &pair[1]].map(|token| token.as_str().expect("a string"));
        format!("{left} {right}")
    });
    Vocabulary { tokens, merges: merges.collect(), token_types, pre: pre.to_owned() }
}

fn check(tokenizer: &Tokenizer, family: &str) {
    let cases: Vec<Value> = serde_json::from_slice(&fixture("encodings.json")).expect("JSON");
    assert!(cases.len() > 15);
    for case in &cases {
        let text = case["text"].as_str().expect("a string");
        let expected: Vec<u32> = serde_json::from_value(case[family].clone()).expect("ids");
        let ids = tokenizer.encode(text, Specials::Parse).expect("it encodes");
        assert_eq!(ids, expected, "{text:?} as {family}");
    }
}

#[test]
fn ids_equal_those_of_the_reference() {
    check(&tokenizer(), "qwen2");
}

// Requirement 37
#[test]
fn a_gguf_vocabulary_gives_the_same_ids() {
    for family in ["qwen2", "qwen35"] {
        let tokenizer = Tokenizer::from_vocabulary(&vocabulary(family)).expect("in order");
        check(&tokenizer, family);
        assert_eq!(tokenizer.vocab_size(), self::tokenizer().vocab_size());
    }
}

#[test]
fn bytes_of_the_ids_are_the_text() {
    let tokenizer = tokenizer();
    for text in ["Grüße, 😀\n\n  x", "a<|im_start|>b", "日本"] {
        for specials in [Specials::Parse, Specials::AsText] {
            let ids = tokenizer.encode(text, specials).expect("it encodes");
            let bytes: Vec<u8> =
                ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).copied().collect();
            assert_eq!(String::from_utf8_lossy(&bytes), text);
        }
    }
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
}

#[test]
fn specials_are_parsed_only_when_asked() {
    let tokenizer = tokenizer();
    let start = tokenizer.id("<|im_start|>").expect("it is there");
    assert!(tokenizer.is_special(start));
    assert!(!tokenizer.is_special(tokenizer.id("<think>").expect("it is there")));
    let parsed = tokenizer.encode("<|im_start|>", Specials::Parse).expect("it encodes");
    assert_eq!(parsed, [start]);
    let plain = tokenizer.encode("<|im_start|>", Specials::AsText).expect("it encodes");
    assert!(!plain.contains(&start) && plain.len() > 1);
}

#[test]
fn contradictory_vocabularies_are_refused() {
    type Damage = fn(&mut Vocabulary);
    let broken: [(&str, Damage); 5] = [
        ("token types", |vocabulary| vocabulary.token_types.truncate(3)),
        ("spelled", |vocabulary| vocabulary.tokens[1] = vocabulary.tokens[0].clone()),
        ("no pair", |vocabulary| vocabulary.merges.push("alone".to_owned())),
        ("vocabulary", |vocabulary| vocabulary.merges.push("no such".to_owned())),
        ("qwen35", |vocabulary| vocabulary.pre = "klingon".to_owned()),
    ];
    for (word, damage) in broken {
        let mut vocabulary = vocabulary("qwen2");
        damage(&mut vocabulary);
        let result = Tokenizer::from_vocabulary(&vocabulary);
        let Err(TextError::BadTokenizer(reason)) = result else { panic!("{word}: accepted") };
        assert!(reason.contains(word), "{reason}");
    }
    for json in [&b"{"[..], b"[]", b"{}", b"{\"model\": {\"type\": \"WordPiece\"}}"] {
        assert!(matches!(Tokenizer::from_json(json), Err(TextError::BadTokenizer(_))));
    }
}

// robustness 32: a long text costs as much as its pieces, and has their ids.
#[test]
fn long_texts_encode_piece_by_piece() {
    let tokenizer = tokenizer();
    let ids = |text: &str| tokenizer.encode(text, Specials::Parse).expect("it encodes");
    let (first, next) = (ids("Hello"), ids(" Hello"));
    let many = 40_000;
    let text = format!("Hello{}", " Hello".repeat(many));
    assert_eq!(ids(&text), [first, next.repeat(many)].concat());
    for piece in ["x", " ", "<", "<|im_start|", "!", "\n", "é"] {
        let text = piece.repeat(300_000 / piece.len());
        let bytes = ids(&text).iter().map(|id| tokenizer.token_bytes(*id).len()).sum::<usize>();
        assert_eq!(bytes, text.len());
    }
}
