//! Bad files 86 to 113: the sample model's GGUF file with one thing wrong.

use std::fs;

use crate::parts::{ARRAY, F32, I32, Key, Parts, STRING, U32, string, zeros};
use crate::{Bad, sprout};

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";

pub fn good() -> Vec<u8> {
    fs::read(sprout().join("sprout-Q8_0.gguf")).unwrap()
}

fn file(name: impl Into<String>, bytes: Vec<u8>, says: &'static str) -> Bad {
    let load = "model.gguf".to_owned();
    Bad { name: name.into(), files: vec![(load.clone(), bytes)], load, says }
}

pub fn all() -> Vec<Bad> {
    let good = good();
    let parts = Parts::read(&good);
    assert_eq!(parts.bytes(), good, "what is taken apart goes together again");
    let lists = [
        beginnings(&good),
        lengths(&parts),
        keys(&parts),
        tensors(&parts),
        places(&parts),
        sizes(&parts),
        words(&parts),
        contents(&parts),
        splits(&parts),
    ];
    lists.into_iter().flatten().collect()
}

/// The whole file after `change`.
fn changed(parts: &Parts, name: &str, says: &'static str, change: impl FnOnce(&mut Parts)) -> Bad {
    let mut parts = parts.clone();
    change(&mut parts);
    file(name, parts.bytes(), says)
}

fn beginnings(good: &[u8]) -> Vec<Bad> {
    let cut = |at: usize| file(format!("86 cut at {at}"), good[..at].to_vec(), "");
    let mut all: Vec<Bad> =
        [0, 3, 4, 7, 8, 20, 24, 1000, 100_000, good.len() / 2, good.len() - 1].map(cut).into();
    let version = |version: u32| [b"GGUF", &version.to_le_bytes()[..], &good[8..]].concat();
    for (name, bytes, says) in [
        ("87 another magic", [b"ABCD", &good[4..]].concat(), "does not begin with `GGUF`"),
        ("87 reversed magic", [b"FUGG", &good[4..]].concat(), "byte-reversed"),
        ("88 version 0", version(0), "version 0"),
        ("88 version 1", version(1), "outdated"),
        ("88 version 4", version(4), "version 4"),
        ("88 big-endian", version(3_u32.swap_bytes()), "big-endian"),
        ("112 pointer", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
        ("112 page", b"<!DOCTYPE html><html></html>".to_vec(), "HTML"),
        ("112 zip", b"PK\x03\x04abcdefgh".to_vec(), "zip"),
        ("112 pickle", b"\x80\x02}q\x00".to_vec(), "pickle"),
    ] {
        all.push(file(name, bytes, says));
    }
    all
}

/// Counts and lengths that the file has no room for.
fn lengths(parts: &Parts) -> Vec<Bad> {
    let good = parts.bytes();
    let count = |at: usize, value: u64| {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let mut all = Vec::new();
    for value in [u64::MAX, 1_000_000_000] {
        all.push(file("89 tensors", count(8, value), "cannot be in this file"));
        all.push(file("89 keys", count(16, value), "cannot be in this file"));
    }
    all.push(file("89 a million keys", count(16, 1_000_000), ""));
    all.push(file("90 key length", count(24, u64::MAX), "the file ends"));
    let long = 1_000_000_000_000_u64.to_le_bytes();
    let list = |element: u32| [&element.to_le_bytes()[..], &long].concat();
    for (name, ty, value) in [
        ("90 text length", STRING, long.to_vec()),
        ("90 bytes", ARRAY, list(0)),
        ("90 numbers", ARRAY, list(U32)),
        ("90 texts", ARRAY, list(STRING)),
        ("90 lists", ARRAY, list(ARRAY)),
    ] {
        // As the last one, so that nothing but its own length is wrong.
        all.push(changed(parts, name, "the file ends", |parts| parts.set("x.long", ty, value)));
    }
    let one = [&ARRAY.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
    let nested = [one.repeat(100_000), zeros(U32, 1)].concat();
    all.push(changed(parts, "91 nested lists", "nested more than 4", |parts| {
        parts.set("x.deep", ARRAY, nested);
    }));
    all
}

fn keys(parts: &Parts) -> Vec<Bad> {
    let number = |ty: u32, value: &[u8]| (ty, value.to_vec());
    let mut all = vec![
        changed(parts, "92 empty key", "1 to 65535", |parts| parts.set_u32("", 1)),
        changed(parts, "93 key twice", "there twice", |parts| {
            let again = parts.key("qwen35.block_count").clone();
            parts.keys.push(again);
        }),
        changed(parts, "a key that is no text", "not UTF-8", |parts| {
            parts.keys.push(Key { name: vec![0xE9, 0xE9], ty: U32, value: vec![0; 4] });
        }),
        changed(parts, "a value of no type", "value type 13 is unknown", |parts| {
            parts.set("x", 13, [0; 4]);
        }),
    ];
    for (name, (ty, value), says) in [
        ("94 alignment 0", number(U32, &[0; 4]), "expected a power of two"),
        ("94 alignment 13", number(U32, &13_u32.to_le_bytes()), "expected a power of two"),
        ("94 alignment -32", number(I32, &(-32_i32).to_le_bytes()), "found -32"),
        ("94 alignment as text", number(STRING, &string("32")), "found the text"),
    ] {
        all.push(changed(parts, name, says, |parts| parts.set("general.alignment", ty, value)));
    }
    all
}

/// Shapes and types of a tensor.
fn tensors(parts: &Parts) -> Vec<Bad> {
    let one = |name: &str, says: &'static str, dimensions: &[u64], ty: u32| {
        changed(parts, name, says, |parts| {
            let tensor = parts.tensor("blk.0.attn_norm.weight");
            (tensor.dimensions, tensor.ty) = (dimensions.to_vec(), ty);
        })
    };
    let mut all = vec![
        one("95 no sizes", "has 0 dimensions", &[], 0),
        one("95 five sizes", "has 5 dimensions", &[1; 5], 0),
        one("96 a size of 0", "has a zero", &[160, 0], 0),
        one("97 the product wraps", "overflows", &[1 << 32, 1 << 32], 0),
        one("97 the product wraps to 16", "overflows", &[1 << 62, 4, 4], 0),
        one("98 the bytes wrap", "overflows", &[1 << 62], 0),
        one("99 blocks of Q4_0 wrap", "", &[u64::MAX - 31], 2),
        one("100 type 200", "type 200 (unknown)", &[160], 200),
        one("100 a removed type", "removed from the format", &[160], 4),
        one("106 rows of no blocks", "not whole blocks of 32", &[33], 8),
        one("106 rows of half blocks", "not whole blocks of 32", &[16, 10], 8),
    ];
    // A count of sizes that nobody could hold.
    let mut bytes = parts.header();
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes.resize(bytes.len() + 4096, 0);
    all.push(file("95 four billion sizes", bytes, "4294967295 dimensions"));
    all
}

/// Where tensors lie.
fn places(parts: &Parts) -> Vec<Bad> {
    let at = |name: &str, says: &'static str, offset: u64| {
        changed(parts, name, says, |parts| parts.tensor("blk.0.attn_norm.weight").offset = offset)
    };
    vec![
        at("101 behind the end", "cut short", 1 << 32),
        at("101 at the end of numbers", "", u64::MAX - 31),
        at("102 between two places", "not a multiple of the alignment", 261_121),
        at("103 overlapping", "overlaps", 0),
        changed(parts, "103 a name twice", "there twice", |parts| {
            parts.tensor("blk.0.attn_norm.weight").name = "token_embd.weight".to_owned();
        }),
        changed(parts, "104 a byte short", "cut short", |parts| _ = parts.data.pop()),
    ]
}

/// Metadata that no model can have.
fn sizes(parts: &Parts) -> Vec<Bad> {
    let number = |name: &str, says: &'static str, key: &str, value: u32| {
        changed(parts, &format!("{name} {key} = {value}"), says, |parts| parts.set_u32(key, value))
    };
    let eps = |name: &str, value: f32| {
        let key = "qwen35.attention.layer_norm_rms_epsilon";
        changed(parts, name, "layer_norm_rms_epsilon", |parts| {
            parts.set(key, F32, value.to_le_bytes());
        })
    };
    let architecture = |name: &str, says: &'static str, ty: u32, value: Vec<u8>| {
        changed(parts, name, says, |parts| parts.set("general.architecture", ty, value))
    };
    vec![
        changed(parts, "107 no architecture", "general.architecture", |parts| {
            parts.without("general.architecture");
        }),
        architecture("107 unknown", "supported: qwen3,", STRING, string("llama9")),
        architecture("107 no text", "general.architecture", U32, vec![7, 0, 0, 0]),
        number("108", "block_count", "qwen35.block_count", u32::MAX),
        number("108", "block_count", "qwen35.block_count", 0),
        number("108", "head_count", "qwen35.attention.head_count", 0),
        number("108", "head_count_kv", "qwen35.attention.head_count_kv", 8),
        number("108", "head_count_kv", "qwen35.attention.head_count_kv", 0),
        number("108", "dimension_count", "qwen35.rope.dimension_count", 15),
        number("108", "context_length", "qwen35.context_length", 0),
        number("108", "vocab_size", "qwen35.vocab_size", 1535),
        number("108", "embedding_length", "qwen35.embedding_length", u32::MAX),
        number("108", "", "qwen35.ssm.group_count", 0),
        number("108", "", "qwen35.ssm.time_step_rank", 0),
        number("108", "", "qwen35.full_attention_interval", 0),
        eps("108 eps 0", 0.0),
        eps("108 eps NaN", f32::NAN),
        eps("108 eps infinite", f32::INFINITY),
    ]
}

/// The tokenizer.
fn words(parts: &Parts) -> Vec<Bad> {
    let tokens = |name: &str, says: &'static str, change: &dyn Fn(&mut Vec<String>)| {
        changed(parts, name, says, |parts| {
            let mut texts = parts.texts(TOKENS);
            change(&mut texts);
            parts.set_texts(TOKENS, &texts);
        })
    };
    let list = |name: &str, key: &str, value: Vec<u8>| {
        changed(parts, name, "entries, one a token", |parts| parts.set(key, ARRAY, value))
    };
    vec![
        tokens("109 a token less", "expected 1535 entries", &|texts| _ = texts.pop()),
        tokens("109 no tokens", "expected 0 entries", &Vec::clear),
        tokens("109 a token twice", "like one before it", &|texts| texts[7] = texts[6].clone()),
        list("109 types", "tokenizer.ggml.token_type", zeros(I32, 1535)),
        list("109 scores", "tokenizer.ggml.scores", zeros(F32, 3)),
        changed(parts, "109 a merge of nothing", "`nobody`", |parts| {
            let mut texts = parts.texts(MERGES);
            texts[0] = "nobody knows".to_owned();
            parts.set_texts(MERGES, &texts);
        }),
        changed(parts, "109 a merge of one", "is no pair", |parts| {
            let mut texts = parts.texts(MERGES);
            texts[0] = "alone".to_owned();
            parts.set_texts(MERGES, &texts);
        }),
        changed(parts, "109 a byte that is none", "token 3 is of the type 6", |parts| {
            let mut texts = parts.texts(TOKENS);
            texts[3] = "<0x-1>".to_owned();
            parts.set_texts(TOKENS, &texts);
            let types = &mut parts.key("tokenizer.ggml.token_type").value;
            types[12 + 4 * 3..][..4].copy_from_slice(&6_i32.to_le_bytes());
        }),
        changed(parts, "109 an end that is no token", "found 1536", |parts| {
            parts.set_u32("tokenizer.ggml.eos_token_id", 1536);
        }),
        changed(parts, "109 another kind", "only byte-level BPE", |parts| {
            parts.set("tokenizer.ggml.model", STRING, string("llama"));
        }),
        changed(parts, "a template that does not compile", "chat template", |parts| {
            parts.set("tokenizer.chat_template", STRING, string("{% for %}"));
        }),
    ]
}

/// Tensors against the configuration.
fn contents(parts: &Parts) -> Vec<Bad> {
    vec![
        changed(parts, "110 missing", "tensor `blk.1.ffn_up.weight`: is missing", |parts| {
            parts.tensor("blk.1.ffn_up.weight").name = "blk.1.ffn_u.weight".to_owned();
        }),
        changed(parts, "110 shape", "expected the shape [320, 160]", |parts| {
            parts.tensor("blk.1.ffn_up.weight").dimensions = vec![320, 160];
        }),
        changed(parts, "110 type", "IQ2_XXS", |parts| {
            parts.tensor("blk.1.ffn_up.weight").ty = 16;
            parts.tensor("blk.1.ffn_up.weight").dimensions = vec![256, 2];
        }),
    ]
}

/// Parts of a split model.
fn splits(parts: &Parts) -> Vec<Bad> {
    let part = |number: u16, count: u16| {
        let mut parts = parts.clone();
        parts.set("split.no", 2, number.to_le_bytes());
        parts.set("split.count", 2, count.to_le_bytes());
        parts.set("split.tensors.count", I32, (parts.tensors.len() as i32).to_le_bytes());
        parts.bytes()
    };
    let first = "m-00001-of-00002.gguf".to_owned();
    let second = "m-00002-of-00002.gguf".to_owned();
    let split = |name: &str, files: Vec<(String, Vec<u8>)>| Bad {
        name: name.to_owned(),
        load: files[0].0.clone(),
        files,
        says: "",
    };
    vec![
        split("113 a part missing", vec![(first.clone(), part(0, 2))]),
        split("113 out of order", vec![(first.clone(), part(1, 2)), (second.clone(), part(0, 2))]),
        split("113 one part twice", vec![(first, part(0, 2)), (second, part(0, 2))]),
        file("113 a part alone", part(1, 3), "part 2 of 3"),
    ]
}
