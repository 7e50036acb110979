//! A model directory with a tokenizer and a chat template, and no weights.

use std::path::Path;
use std::{fs, io};

use serde_json::{Map, Value, json};

/// The token that ends a turn of the written model.
pub const END_OF_TURN: u32 = 257;

/// Special tokens of the written model, with ids from 256 on.
const SPECIALS: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];

const TEMPLATE: &str = "\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
";

/// The token of a byte in the written model's vocabulary, which has no merges.
pub fn byte_token(byte: u8) -> u32 {
    u32::from(byte)
}

/// The tokens of a text in the written model's vocabulary.
pub fn byte_tokens(text: &str) -> Vec<u32> {
    text.bytes().map(byte_token).collect()
}

/// The spellings of all tokens by their ids, as byte-level vocabularies have them. The written
/// model has no merge; the special tokens begin with `<|`.
pub fn vocabulary() -> Vec<String> {
    let bytes = (0..=255).map(|byte| byte_char(byte).to_string());
    bytes.chain(SPECIALS.map(str::to_owned)).collect()
}

/// Writes the files beside the weights: a byte-level tokenizer, a ChatML template and generation
/// defaults that are greedy.
pub fn write_model_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let write = |name: &str, value: &Value| fs::write(dir.join(name), value.to_string());
    write("tokenizer.json", &tokenizer())?;
    write(
        "generation_config.json",
        &json!({"eos_token_id": [END_OF_TURN, 258], "temperature": 0.0}),
    )?;
    write("config.json", &json!({"model_type": "scripted"}))?;
    fs::write(dir.join("chat_template.jinja"), TEMPLATE)
}

fn tokenizer() -> Value {
    let ordinary = vocabulary().into_iter().take(256).enumerate();
    let vocab: Map<_, _> = ordinary.map(|(id, token)| (token, json!(id))).collect();
    let added: Vec<Value> = SPECIALS
        .iter()
        .enumerate()
        .map(|(at, content)| {
            json!({
                "id": 256 + at, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
            "use_regex": false,
        },
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
            "use_regex": false,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": [],
        },
    })
}

/// The character that stands for a byte in byte-level vocabularies: itself where it prints, and
/// otherwise the next free one from U+0100 on.
fn byte_char(byte: u8) -> char {
    let prints = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(0x100 + hidden_before).expect("U+0100 to U+0143 are characters")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let all: HashSet<char> = (0..=255).map(byte_char).collect();
        assert_eq!(all.len(), 256);
        assert_eq!((byte_char(b' '), byte_char(b'\n'), byte_char(b'a')), ('Ġ', 'Ċ', 'a'));
    }
}
