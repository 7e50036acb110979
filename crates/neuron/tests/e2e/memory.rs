//! What an engine child takes, against what its plan says, on models large enough to tell.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use engine::{EngineInfo, EngineSpec, Grammar, TokenRequest, Vocabulary};
use model::gguf::write::{Header, NewValue};
use neuron::child::link::{self, FromChild, LoadCode, LoadDetails, LoadFailure, ToChild};
use serde_json::{Map, json};

const LAYERS: usize = 8;
const HIDDEN: usize = 1024;
const FFN: usize = 4096;
const VOCAB: usize = 32 * 1024;
const HEADS: usize = 16;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 64;

/// What the compiler of grammars takes whatever the vocabulary.
const COMPILER: u64 = 8 << 20;

/// The embedding is the largest tensor.
const LARGEST: usize = VOCAB * HIDDEN;

/// An engine child that is told what to load, as the daemon tells it.
struct Engine {
    child: Child,
    link: UnixStream,
    /// Whether it began to load.
    began: bool,
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Engine {
    fn load(spec: &EngineSpec) -> (Self, Result<EngineInfo, LoadFailure>) {
        let (link, far) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_neuron"))
            .arg("engine")
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut engine = Self { child, link, began: false };
        link::write_frame(&mut engine.link, &ToChild::Load(spec.clone())).unwrap();
        let loaded = loop {
            match link::read_frame(&mut engine.link).unwrap().expect("the child ended") {
                FromChild::Progress { .. } => engine.began = true,
                FromChild::Ready(info) => break Ok(info),
                FromChild::LoadFailed(failure) => break Err(failure),
                other => panic!("{other:?}"),
            }
        };
        (engine, loaded)
    }

    /// Says what the tokens spell, and waits until an answer has followed a grammar.
    fn spell(&mut self) {
        let word = |id: usize| match u8::try_from(id) {
            Ok(byte) => vec![byte],
            // Words of some seven letters that share their beginnings now and then.
            Err(_) => format!("{:x}", id.wrapping_mul(0x9E37_79B1) & 0xFFF_FFFF).into_bytes(),
        };
        let vocabulary = Vocabulary { bytes: (0..VOCAB).map(word).collect(), specials: vec![] };
        link::write_frame(&mut self.link, &ToChild::Vocabulary(vocabulary)).unwrap();
        let request = TokenRequest {
            stop_tokens: vec![300],
            grammar: Some(Grammar("start: \"a\"".to_owned())),
            ..TokenRequest::new(1, vec![5], 4)
        };
        link::write_frame(&mut self.link, &ToChild::Submit(request)).unwrap();
        loop {
            match link::read_frame(&mut self.link).unwrap().expect("the child ended") {
                FromChild::Step(step) if step.updates.iter().any(|it| it.end.is_some()) => return,
                FromChild::Step(_) | FromChild::Accepted(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// A line of the process's status, in bytes.
    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }
}

/// Names in GGUF and safetensors files and shapes of all tensors; a name's first part in GGUF
/// files stands for all layers.
fn tensors() -> Vec<(String, String, Vec<usize>)> {
    let mut all = vec![
        ("token_embd".to_owned(), "model.embed_tokens".to_owned(), vec![VOCAB, HIDDEN]),
        ("output_norm".to_owned(), "model.norm".to_owned(), vec![HIDDEN]),
    ];
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    for layer in 0..LAYERS {
        for (gguf, hf, shape) in [
            ("attn_norm", "input_layernorm", vec![HIDDEN]),
            ("attn_q", "self_attn.q_proj", vec![q, HIDDEN]),
            ("attn_k", "self_attn.k_proj", vec![kv, HIDDEN]),
            ("attn_v", "self_attn.v_proj", vec![kv, HIDDEN]),
            ("attn_q_norm", "self_attn.q_norm", vec![HEAD_DIM]),
            ("attn_k_norm", "self_attn.k_norm", vec![HEAD_DIM]),
            ("attn_output", "self_attn.o_proj", vec![HIDDEN, q]),
            ("ffn_norm", "post_attention_layernorm", vec![HIDDEN]),
            ("ffn_gate", "mlp.gate_proj", vec![FFN, HIDDEN]),
            ("ffn_up", "mlp.up_proj", vec![FFN, HIDDEN]),
            ("ffn_down", "mlp.down_proj", vec![HIDDEN, FFN]),
        ] {
            all.push((format!("blk.{layer}.{gguf}"), format!("model.layers.{layer}.{hf}"), shape));
        }
    }
    all
}

/// A checkpoint whose weights are zero, which takes no room on the disk.
fn write_checkpoint(directory: &Path) {
    let config = json!({
        "model_type": "qwen3", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096, "rope_theta": 1e6, "tie_word_embeddings": true
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let (mut header, mut end) = (Map::new(), 0);
    for (_, name, shape) in tensors() {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(format!("{name}.weight"), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = File::create(directory.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// The same as a GGUF file with `Q4_K` matrices.
fn write_gguf(path: &Path) {
    let mut header = Header::new();
    header.put("general.architecture", "qwen3");
    for (key, value) in [
        ("block_count", LAYERS),
        ("context_length", 4096),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", FFN),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("attention.key_length", HEAD_DIM),
    ] {
        header.put(&format!("qwen3.{key}"), NewValue::U32(value as u32));
    }
    header.put("qwen3.attention.layer_norm_rms_epsilon", NewValue::F32(1e-6));
    let mut end = 0;
    for (name, _, shape) in tensors() {
        let ty = if shape.len() == 1 { "F32" } else { "Q4_K" };
        let ty = model::Recipe::from_name(ty).unwrap().base();
        header.declare(&format!("{name}.weight"), &shape, ty);
        end += ty.bytes(shape.iter().product::<usize>() as u64).unwrap().next_multiple_of(32);
    }
    let mut file = File::create(path).unwrap();
    let header = header.bytes();
    file.write_all(&header).unwrap();
    file.set_len(header.len() as u64 + end).unwrap();
}

fn spec(source: &Path, quant: Option<&str>) -> EngineSpec {
    EngineSpec {
        quant: quant.map(str::to_owned),
        // Enough that the program itself, which no plan counts, is little beside it.
        kv_blocks: Some(2048),
        max_running: 4,
        threads: Some(2),
        ..EngineSpec::new(source)
    }
}

fn planned(info: &EngineInfo) -> u64 {
    info.ranks.iter().map(|rank| rank.weights + rank.kv + rank.state + rank.workspace).sum()
}

/// Loads a model and compares. `file_bytes` are those of the largest tensor in its file.
#[track_caller]
fn assert_as_planned(spec: &EngineSpec, quant: &str, file_bytes: usize) {
    let plan = engine::plan(spec).unwrap();
    let (mut engine, info) = Engine::load(spec);
    let info = info.unwrap();
    assert_eq!(info, plan);
    assert_eq!(info.quant, quant);
    let before = engine.status("VmRSS");
    engine.spell();
    let (grown, spelling) = (engine.status("VmRSS") - before, 480 * VOCAB as u64);
    assert!(
        (spelling / 2..spelling + COMPILER).contains(&grown),
        "{grown} bytes for what tokens spell, of which {spelling} were planned"
    );
    let (planned, taken) = (planned(&info), engine.status("VmRSS"));
    let within = planned / 20;
    assert!(
        planned.abs_diff(taken) <= within,
        "{quant}: {planned} bytes were planned and {taken} are taken"
    );
    // While it is packed, a tensor's part of the file is in memory too.
    let (peak, bound) = (engine.status("VmHWM"), planned + within + file_bytes as u64);
    assert!(peak <= bound, "{quant}: the load took {peak} bytes, {bound} would be fine");
}

/// One test, so that its loads follow one another: two at once would need their sum.
#[test]
fn a_load_takes_what_its_plan_says_within_five_percent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_checkpoint(path);
    assert_as_planned(&spec(path, None), "BF16", 0);
    assert_as_planned(&spec(path, Some("Q8_0")), "Q8_0", 2 * LARGEST + LARGEST / 32 * 34);
    let gguf = path.join("model.gguf");
    write_gguf(&gguf);
    assert_as_planned(&spec(&gguf, None), "Q4_K", LARGEST / 256 * 144);
    let two_ranks = EngineSpec { world_size: 2, ..spec(&gguf, None) };
    assert_as_planned(&two_ranks, "Q4_K", LARGEST / 256 * 144);
}

#[test]
fn a_plan_over_what_is_free_is_refused_before_a_byte_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let gguf = directory.path().join("model.gguf");
    write_gguf(&gguf);
    // Keys and values of 2^36 tokens.
    let huge = EngineSpec { kv_blocks: Some(u32::MAX), ..spec(&gguf, None) };
    let (engine, failure) = Engine::load(&huge);
    let failure = failure.unwrap_err();
    assert_eq!(failure.code, LoadCode::DoesNotFit);
    let Some(LoadDetails::Memory { needed_mb, free_mb }) = failure.details.as_deref() else {
        panic!("{failure:?}")
    };
    assert!(needed_mb > free_mb && *needed_mb > 1 << 30, "{failure}");
    assert!(!engine.began, "the load began");
}
