//! Bad files 115 to 123: a checkpoint with random weights and one thing wrong.

use std::fs;

use serde_json::{Value, json};

use crate::Bad;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const NORM: &str = "model.norm.weight";

/// The files of a checkpoint.
#[derive(Clone)]
struct Checkpoint(Vec<(String, Vec<u8>)>);

impl Checkpoint {
    fn good() -> Self {
        let dir = tempfile::tempdir().unwrap();
        testkit::write_random_model(dir.path(), 3).unwrap();
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        });
        Self(files.collect())
    }

    fn get(&self, name: &str) -> &[u8] {
        &self.0.iter().find(|(known, _)| known == name).unwrap().1
    }

    fn set(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.remove(name);
        self.0.push((name.to_owned(), bytes.into()));
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(self.get(name)).unwrap()
    }

    /// Header and data of the weights.
    fn weights(&self) -> (Value, Vec<u8>) {
        let bytes = self.get(WEIGHTS);
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        (serde_json::from_slice(&bytes[8..start]).unwrap(), bytes[start..].to_vec())
    }
}

fn weights(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

pub fn all() -> Vec<Bad> {
    let good = Checkpoint::good();
    let lists = [headers(&good), tensors(&good), shards(&good), configs(&good), words(&good)];
    lists.into_iter().flatten().collect()
}

fn changed(
    good: &Checkpoint,
    name: &str,
    says: &'static str,
    change: impl FnOnce(&mut Checkpoint),
) -> Bad {
    let mut files = good.clone();
    change(&mut files);
    Bad { name: name.to_owned(), files: files.0, load: String::new(), says }
}

/// The length in front and what it is the length of.
fn headers(good: &Checkpoint) -> Vec<Bad> {
    let file = |name: &str, says: &'static str, bytes: &[u8]| {
        changed(good, name, says, |files| files.set(WEIGHTS, bytes))
    };
    let whole = good.get(WEIGHTS);
    let length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let header = |text: &str| weights(text, &[0; 16]);
    let mut all = vec![
        file("115 seven bytes", "has 7 bytes", &whole[..7]),
        file("115 a length of 0", "a length of 0", &length(0)),
        file("115 a length of 2^64-1", "a length of 18446744073709551615", &length(u64::MAX)),
        file("115 a length beyond the file", "a length of", &length(whole.len() as u64)),
        file("115 no JSON", "header", &header("{not json")),
        file("115 a list", "not a JSON object", &header("[1]")),
        file("115 no text", "header", &weights("{\"\u{e9}\":1}", &[]).map_at(10, 0xFF)),
        file("115 deeply nested", "header", &header(&"{\"a\":".repeat(100_000))),
        file("112 pointer", "git lfs pull", b"version https://git-lfs.github.com/spec/v1\n"),
    ];
    for at in [0, 9, 100, whole.len() / 2, whole.len() - 1] {
        all.push(file(&format!("118 cut at {at}"), "", &whole[..at]));
    }
    all.push(file("118 a byte more", "belong to nothing", &[whole, &[0]].concat()));
    all
}

trait MapAt {
    /// The bytes with one of them replaced.
    fn map_at(self, at: usize, byte: u8) -> Self;
}

impl MapAt for Vec<u8> {
    fn map_at(mut self, at: usize, byte: u8) -> Self {
        self[at] = byte;
        self
    }
}

/// Entries of the header.
fn tensors(good: &Checkpoint) -> Vec<Bad> {
    let (header, data) = good.weights();
    let places = header[NORM]["data_offsets"].clone();
    let (begin, end) = (places[0].as_u64().unwrap(), places[1].as_u64().unwrap());
    let entry = |name: &str, says: &'static str, field: &str, value: Value| {
        let mut header = header.clone();
        header[NORM][field] = value;
        let bytes = weights(&header.to_string(), &data);
        changed(good, name, says, |files| files.set(WEIGHTS, bytes))
    };
    let text = header.to_string();
    let norm = format!("\"{NORM}\":{}", header[NORM]);
    let twice = weights(&text.replacen('{', &format!("{{{norm},"), 1), &data);
    let gone = weights(&text.replace(NORM, "model.other.weight"), &data);
    vec![
        entry(
            "116 behind the end",
            "",
            "data_offsets",
            json!([begin + (1 << 40), end + (1 << 40)]),
        ),
        entry("116 reversed", "does not take the bytes", "data_offsets", json!([end, begin])),
        entry("116 overlap", "overlaps", "data_offsets", json!([begin - 128, end - 128])),
        entry("116 hole", "", "data_offsets", json!([begin + 4, end + 4])),
        entry("116 beyond numbers", "", "data_offsets", json!([u64::MAX - 128, u64::MAX])),
        entry("117 shape", "does not take the bytes", "shape", json!([31])),
        entry("117 shape overflows", "does not take", "shape", json!([1_u64 << 62, 1_u64 << 62])),
        entry("117 negative", "header", "shape", json!([-32])),
        entry("117 fraction", "header", "shape", json!([31.5])),
        entry("117 dtype", "type `Q4` is unknown", "dtype", json!("Q4")),
        entry("117 whole numbers", "expected F32, F16 or BF16", "dtype", json!("I32")),
        entry("120 a size of 0", "has a zero", "shape", json!([0, 32])),
        changed(good, "119 a name twice", "there twice", |files| files.set(WEIGHTS, twice)),
        changed(good, "110 missing", "`model.norm.weight`: is missing", |files| {
            files.set(WEIGHTS, gone);
        }),
    ]
}

/// An index, and shards that are not what it says.
fn shards(good: &Checkpoint) -> Vec<Bad> {
    let (header, _) = good.weights();
    let map = |shard: &str| {
        let names = header.as_object().unwrap().keys();
        names.map(|name| (name.clone(), json!(shard))).collect::<serde_json::Map<_, _>>()
    };
    let index = |name: &str, says: &'static str, map: Value| {
        let index = json!({"metadata": {}, "weight_map": map}).to_string();
        changed(good, name, says, |files| files.set(INDEX, index))
    };
    let with = |name: &str, shard: &str| {
        let mut map = map(WEIGHTS);
        map.insert(name.to_owned(), json!(shard));
        Value::Object(map)
    };
    let mut all = vec![
        index("121 a shard is missing", "not found", Value::Object(map("no.safetensors"))),
        index("121 a path upwards", "not the name of a file", with(NORM, "../x.safetensors")),
        index("121 an absolute path", "not the name of a file", with(NORM, "/etc/passwd")),
        index("121 a tensor that is not there", "is not in", with("other", WEIGHTS)),
        index("121 no names", "JSON", json!([1])),
        changed(good, "121 no JSON", "JSON", |files| files.set(INDEX, "{")),
    ];
    let twice = json!({"metadata": {}, "weight_map": with("model.norm.weight", "2.safetensors")});
    let copy = good.get(WEIGHTS).to_vec();
    all.push(changed(good, "121 a tensor in two shards", "is in 2.safetensors too", |files| {
        files.set("2.safetensors", copy);
        files.set(INDEX, twice.to_string());
    }));
    for name in ["pytorch_model.bin", "model.pt", "model.pkl"] {
        all.push(changed(good, "122 pickles", "pickle", |files| {
            let weights = files.get(WEIGHTS).to_vec();
            files.remove(WEIGHTS);
            files.set(name, weights);
        }));
    }
    all
}

/// The configuration.
fn configs(good: &Checkpoint) -> Vec<Bad> {
    let config = |says: &'static str, field: &str, value: Value| {
        let mut config = good.json("config.json");
        config[field] = value;
        let name = format!("123 {field} {}", config[field]);
        changed(good, &name, says, |files| files.set("config.json", config.to_string()))
    };
    vec![
        changed(good, "123 no configuration", "", |files| files.remove("config.json")),
        changed(good, "123 no JSON", "EOF", |files| files.set("config.json", "{")),
        changed(good, "123 a list", "", |files| files.set("config.json", "[]")),
        config("num_attention_heads", "num_attention_heads", json!(0)),
        config("num_attention_heads", "num_attention_heads", json!("two")),
        config("num_key_value_heads", "num_key_value_heads", json!(0)),
        config("num_key_value_heads", "num_key_value_heads", json!(3)),
        config("", "head_dim", json!(24)),
        config("", "hidden_size", json!(1_u64 << 40)),
        config("num_hidden_layers", "num_hidden_layers", json!(4_294_967_295_u32)),
        config("num_hidden_layers", "num_hidden_layers", json!(-1)),
        config("", "vocab_size", json!(100)),
        config("rms_norm_eps", "rms_norm_eps", json!(0)),
        config("max_position_embeddings", "max_position_embeddings", json!(0)),
        config("supported:", "model_type", json!("llama9")),
        config("", "model_type", json!(7)),
        config("", "num_hidden_layers", json!(3)),
    ]
}

/// What belongs to the words.
fn words(good: &Checkpoint) -> Vec<Bad> {
    let tokenizer = |name: &str, says: &'static str, change: &dyn Fn(&mut Value)| {
        let mut json = good.json("tokenizer.json");
        change(&mut json);
        changed(good, name, says, |files| files.set("tokenizer.json", json.to_string()))
    };
    let file = |name: &str, says: &'static str, file: &str, bytes: &[u8]| {
        changed(good, name, says, |files| files.set(file, bytes))
    };
    vec![
        changed(good, "123 no tokenizer", "missing", |files| files.remove("tokenizer.json")),
        file("123 an empty tokenizer", "tokenizer", "tokenizer.json", b""),
        file("123 a broken tokenizer", "tokenizer", "tokenizer.json", b"{\"model\":"),
        tokenizer("123 a tokenizer of no kind", "tokenizer", &|json| json["model"] = json!({})),
        tokenizer("123 more tokens than rows", "has ids up to 999", &|json| {
            json["added_tokens"][0]["id"] = json!(999);
        }),
        file("123 a broken template", "chat template", "chat_template.jinja", b"{% for %}"),
        file("123 a template that is no text", "not UTF-8", "chat_template.jinja", b"\xff\xfe"),
        file("123 broken defaults", "", "generation_config.json", b"{"),
    ]
}
