//! The tiny checkpoints converted and read back.

use std::fs;

use kernels::WeightType;
use serde_json::{Value, json};

use super::*;
use crate::load::MtpRole;
use crate::{Architecture, ExpertLayout, LayerKind, Role, ValueHeadOrder};

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", name].iter().collect()
}

/// A checkpoint converted in a directory of its own.
struct Converted {
    hf: Source,
    gguf: Source,
    directory: tempfile::TempDir,
}

fn converted(name: &str, ty: WeightType) -> Converted {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("model.gguf");
    convert(&fixture(name), &out, ty).unwrap();
    let (hf, gguf) = (Source::open(&fixture(name)).unwrap(), Source::open(&out).unwrap());
    Converted { hf, gguf, directory }
}

impl Converted {
    /// The values of a tensor in the checkpoint and in the GGUF file.
    fn both(&self, name: TensorName) -> (Vec<f32>, Vec<f32>) {
        let of = |source: &Source| source.tensor(name).unwrap().to_f32();
        (of(&self.hf), of(&self.gguf))
    }

    fn layer(&self, role: Role) -> (Vec<f32>, Vec<f32>) {
        self.both(TensorName::Layer(0, role))
    }
}

/// Grouped value head of each tiled one, for 2 key heads and 4 value heads.
const GROUPED: [usize; 4] = [0, 2, 1, 3];

/// Checks that the heads of `size` elements are tiled in `found` and grouped in `original`.
#[track_caller]
fn assert_tiled(original: &[f32], found: &[f32], size: usize) {
    assert_eq!(found.len(), 4 * size);
    for (p, head) in found.chunks(size).enumerate() {
        assert_eq!(head, &original[GROUPED[p] * size..][..size], "head {p}");
    }
}

#[test]
fn the_dense_model_stays_the_same_in_f32() {
    let model = converted("qwen3", WeightType::F32);
    assert_eq!(
        *model.gguf.config(),
        ModelConfig { a_log_is_log: false, ..model.hf.config().clone() }
    );
    for name in TensorName::all(model.hf.config()) {
        let (hf, gguf) = model.both(name);
        assert_eq!(hf, gguf, "{name}");
        assert_eq!(model.gguf.tensor(name).unwrap().ty, WeightType::F32);
    }
}

// Requirement 126
#[test]
fn the_hybrid_model_has_the_configuration_of_its_checkpoint() {
    let model = converted("qwen3_5", WeightType::F32);
    let mut expected = model.hf.config().clone();
    expected.norm_plus_one = false;
    expected.a_log_is_log = false;
    expected.rope_sections = Some(vec![2, 1, 1, 0]);
    expected.delta.as_mut().unwrap().value_head_order = ValueHeadOrder::Tiled;
    assert_eq!(*model.gguf.config(), expected);
    let gguf = model.gguf.gguf().unwrap();
    assert_eq!(gguf.metadata().get::<u32>("qwen35.block_count").unwrap(), 9);
    assert!(gguf.tensor("blk.8.nextn.eh_proj.weight").is_some());
    assert!(gguf.tensor("blk.0.ssm_a").is_some());
    assert_eq!(gguf.tensors().count(), TensorName::all(&expected).len());
}

// Requirement 126
#[test]
fn the_value_heads_of_the_hybrid_are_tiled() {
    let model = converted("qwen3_5", WeightType::F32);
    let (hidden, head) = (64, 32);
    let (hf, gguf) = model.layer(Role::DeltaQkv);
    let before = 2 * 2 * 32 * hidden;
    assert_eq!(hf[..before], gguf[..before]);
    assert_tiled(&hf[before..], &gguf[before..], head * hidden);
    let (hf, gguf) = model.layer(Role::DeltaConv);
    assert_eq!(hf[..128 * 4], gguf[..128 * 4]);
    assert_tiled(&hf[128 * 4..], &gguf[128 * 4..], head * 4);
    for (role, size) in [
        (Role::DeltaGate, head * hidden),
        (Role::DeltaBeta, hidden),
        (Role::DeltaAlpha, hidden),
        (Role::DeltaDtBias, 1),
    ] {
        let (hf, gguf) = model.layer(role);
        assert_tiled(&hf, &gguf, size);
    }
    let (hf, gguf) = model.layer(Role::DeltaA);
    let rates: Vec<f32> = hf.iter().map(|a| -a.exp()).collect();
    assert_tiled(&rates, &gguf, 1);
    let (hf, gguf) = model.layer(Role::DeltaOut);
    for (hf, gguf) in hf.chunks(128).zip(gguf.chunks(128)) {
        assert_tiled(hf, gguf, head);
    }
}

// Requirement 126
#[test]
fn norms_hold_one_more_and_all_else_is_unchanged() {
    let model = converted("qwen3_5", WeightType::F32);
    let mut names = vec![
        TensorName::OutputNorm,
        TensorName::Mtp(MtpRole::Norm),
        TensorName::Mtp(MtpRole::EmbeddingNorm),
        TensorName::Mtp(MtpRole::HiddenNorm),
        TensorName::MtpLayer(Role::QNorm),
    ];
    for role in [Role::AttnNorm, Role::PostNorm, Role::QNorm, Role::KNorm] {
        names.push(TensorName::Layer(3, role));
    }
    for name in names {
        let (hf, gguf) = model.both(name);
        assert_eq!(hf.iter().map(|w| w + 1.0).collect::<Vec<_>>(), gguf, "{name}");
    }
    for name in [
        TensorName::Embedding,
        TensorName::Output,
        TensorName::Layer(0, Role::DeltaNorm),
        TensorName::Layer(0, Role::FfnDown),
        TensorName::Layer(3, Role::Q),
        TensorName::Layer(7, Role::O),
        TensorName::Mtp(MtpRole::Fc),
        TensorName::MtpLayer(Role::K),
    ] {
        let (hf, gguf) = model.both(name);
        assert_eq!(hf, gguf, "{name}");
    }
}

/// The checkpoint's experts, each by itself, and the file's, whole.
#[test]
fn experts_are_stacked() {
    for name in ["qwen3_moe", "qwen3_5_moe", "qwen3_next"] {
        let model = converted(name, WeightType::F32);
        let config = model.gguf.config();
        let moe = config.moe.unwrap();
        assert_eq!(model.hf.config().moe, Some(moe), "{name}");
        assert_eq!(config.layout.experts, ExpertLayout::Stacked);
        let up = model.gguf.tensor(TensorName::Layer(1, Role::ExpertsUp)).unwrap();
        assert_eq!((up.name, &up.shape[..]), ("blk.1.ffn_up_exps.weight", &[8, moe.ffn, 64][..]));
        for expert in 0..moe.experts {
            for role in [Role::ExpertGate, Role::ExpertUp, Role::ExpertDown] {
                let name = TensorName::Layer(2, role(expert));
                let of = |source: &Source| source.matrix(name).unwrap().to_f32();
                assert_eq!(of(&model.hf), of(&model.gguf), "{name}");
            }
        }
        for (name, router) in [("ffn_gate_inp", true), ("ffn_gate_inp_shexp", false)] {
            let found = model.gguf.gguf().unwrap().tensor(&format!("blk.0.{name}.weight"));
            let shape = found.map(|tensor| tensor.shape);
            let expected =
                if router { Some(vec![8, 64]) } else { moe.shared_ffn.map(|_| vec![64]) };
            assert_eq!(shape, expected, "{name}");
        }
    }
}

// Requirement 126
#[test]
fn the_value_heads_of_next_stay_grouped() {
    let model = converted("qwen3_next", WeightType::F32);
    let config = model.gguf.config();
    assert_eq!(config.delta.unwrap().value_head_order, ValueHeadOrder::Grouped);
    assert_eq!(config.layout, Layout::gguf(Architecture::Qwen3Next));
    for role in [Role::DeltaQkv, Role::DeltaGate, Role::DeltaBeta, Role::DeltaAlpha, Role::DeltaOut]
    {
        let name = TensorName::Layer(1, role);
        let of = |source: &Source| source.matrix(name).unwrap().to_f32();
        assert_eq!(of(&model.hf), of(&model.gguf), "{name}");
    }
    let gguf = model.gguf.gguf().unwrap();
    assert!(gguf.tensor("blk.0.ssm_ba.weight").is_some_and(|tensor| tensor.shape == [8, 64]));
    assert!(gguf.tensor("blk.0.ssm_beta.weight").is_none());
    let tiled = converted("qwen3_5_moe", WeightType::F32);
    let order = tiled.gguf.config().delta.unwrap().value_head_order;
    assert_eq!(order, ValueHeadOrder::Tiled);
    let (hf, gguf) = tiled.layer(Role::DeltaGate);
    assert_tiled(&hf, &gguf, 32 * 64);
}

/// Files of other converters: q, k, v and z in one tensor, gate and up of all experts in one.
#[test]
fn other_layouts_hold_the_same_matrices() {
    let stacked = Layout { experts: ExpertLayout::Stacked, ..Layout::default() };
    for (name, layout) in [
        ("qwen3_next", Layout { fused_qkvz: true, fused_ba: true, ..stacked }),
        ("qwen3_next", stacked),
        ("qwen3_5_moe", Layout { experts: ExpertLayout::Fused, ..stacked }),
    ] {
        let model = converted(name, WeightType::F32);
        let path = model.directory.path().join("other.gguf");
        write_model(&model.hf, &path, WeightType::F32.into(), layout).unwrap();
        let other = Source::open(&path).unwrap();
        assert_eq!(other.config().layout, layout);
        for layer in 0..4 {
            let roles = match other.config().layers[layer] {
                LayerKind::FullAttention => vec![],
                LayerKind::LinearAttention => {
                    let ba = (name == "qwen3_next").then_some(Role::DeltaBa);
                    let split =
                        [Role::DeltaQkv, Role::DeltaGate, Role::DeltaBeta, Role::DeltaAlpha];
                    split.into_iter().chain(ba).collect()
                }
            };
            let experts = (0..8).flat_map(|expert| {
                [Role::ExpertGate(expert), Role::ExpertUp(expert), Role::ExpertDown(expert)]
            });
            for role in roles.into_iter().chain(experts) {
                let name = TensorName::Layer(layer, role);
                let of = |source: &Source| source.matrix(name).unwrap().to_f32();
                assert_eq!(of(&other), of(&model.gguf), "{name} in {layout:?}");
            }
        }
    }
}

#[test]
fn the_same_checkpoint_makes_the_same_bytes() {
    let read = |model: &Converted| fs::read(model.directory.path().join("model.gguf")).unwrap();
    let (one, two) =
        (converted("qwen3_5", WeightType::Q8_0), converted("qwen3_5", WeightType::Q8_0));
    assert!(read(&one) == read(&two));
    let left: Vec<_> = fs::read_dir(one.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the model is left");
}

#[test]
fn matrices_are_quantised_and_small_tensors_are_not() {
    let model = converted("qwen3_5", WeightType::Q8_0);
    for name in TensorName::all(model.hf.config()) {
        let (hf, ty) = (model.hf.tensor(name).unwrap(), model.gguf.tensor(name).unwrap().ty);
        let small = hf.shape.len() == 1
            || matches!(
                name,
                TensorName::Layer(_, Role::DeltaConv | Role::DeltaAlpha | Role::DeltaBeta)
            );
        assert_eq!(ty, if small { WeightType::F32 } else { WeightType::Q8_0 }, "{name}");
    }
    let (hf, gguf) = model.both(TensorName::Layer(0, Role::FfnUp));
    let largest = hf.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (x, y) in hf.iter().zip(&gguf) {
        assert!((x - y).abs() <= largest / 127.0, "{x} became {y}");
    }
}

// Requirement 37
#[test]
fn the_tokenizer_is_taken_along() {
    let model = converted("qwen3_5", WeightType::F32);
    let metadata = model.gguf.gguf().unwrap().metadata();
    let text = |key: &str| metadata.get::<&str>(key).unwrap();
    assert_eq!(text("tokenizer.ggml.model"), "gpt2");
    assert_eq!(text("tokenizer.ggml.pre"), "qwen35");
    let tokens: Vec<&str> = metadata.get("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.len(), 256);
    assert_eq!(
        [tokens[0], tokens[245], tokens[250], tokens[255]],
        ["!", "hello", "<|im_end|>", "[PAD255]"]
    );
    let merges: Vec<&str> = metadata.get("tokenizer.ggml.merges").unwrap();
    assert_eq!(merges[3..5], ["hell o", "Ġ w"]);
    assert_eq!(metadata.get::<u32>("tokenizer.ggml.eos_token_id").unwrap(), 250);
    assert_eq!(metadata.get::<u32>("tokenizer.ggml.padding_token_id").unwrap(), 248);
    assert!(!metadata.get::<bool>("tokenizer.ggml.add_bos_token").unwrap());
    assert!(text("tokenizer.chat_template").starts_with("{%- for message"));
    let types = metadata.value("tokenizer.ggml.token_type").unwrap();
    let crate::gguf::Value::Array(types) = types else { panic!("{types:?}") };
    let types: Vec<_> = types.iter().collect();
    let signed = crate::gguf::Value::Signed;
    assert_eq!([types[247], types[248], types[251]], [signed(1), signed(3), signed(5)]);
    // The dense checkpoint has no tokenizer, and is converted all the same.
    let dense = converted("qwen3", WeightType::F32);
    assert_eq!(
        dense.gguf.gguf().unwrap().metadata().find::<&str>("tokenizer.ggml.model").unwrap(),
        Some("no_vocab")
    );
}

/// A copy of the hybrid checkpoint with one JSON file edited.
fn edited(file: &str, edit: impl Fn(&mut Value)) -> tempfile::TempDir {
    edited_model("qwen3_5", file, edit)
}

fn edited_model(name: &str, file: &str, edit: impl Fn(&mut Value)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = directory.path().join(file);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut json);
    fs::write(&path, json.to_string()).unwrap();
    directory
}

#[test]
fn a_prediction_layer_that_is_not_whole_is_left_out() {
    let announced = edited_model("qwen3_5_moe", "config.json", |config| {
        config["mtp_num_hidden_layers"] = 1.into();
    });
    let source = Source::open(announced.path()).unwrap();
    let warning = "the multi-token prediction layer is left out: tensor `mtp.fc.weight` is missing";
    assert_eq!((source.config().mtp_layers, source.warnings()), (0, &[warning.to_owned()][..]));
    let whole = Source::open(&fixture("qwen3_5")).unwrap();
    assert_eq!((whole.config().mtp_layers, whole.warnings().len()), (1, 0));
}

#[track_caller]
fn refused(directory: &tempfile::TempDir, part: &str) {
    let out = directory.path().join("out.gguf");
    let error = convert(directory.path(), &out, WeightType::F32).unwrap_err().to_string();
    assert!(error.contains(part), "`{error}` does not say `{part}`");
    assert!(!out.exists() && !directory.path().join("out.gguf.part").exists());
}

// Bad files 109 and 123
#[test]
fn tokenizers_that_contradict_themselves_are_refused() {
    let tokenizer = |edit: &dyn Fn(&mut Value), part: &str| {
        refused(&edited("tokenizer.json", edit), part);
    };
    tokenizer(&|t| t["model"]["vocab"]["x"] = 300.into(), "token `x`");
    tokenizer(&|t| t["model"]["vocab"]["extra"] = 0.into(), "is there twice");
    tokenizer(&|t| t["added_tokens"][0]["id"] = 256.into(), "the id 256 is not below 256");
    tokenizer(&|t| t["added_tokens"][0]["content"] = "!".into(), "token `!`: it or its id 248");
    tokenizer(&|t| t["model"]["merges"][0] = json!(["zz", "z"]), "not a pair of known tokens");
    tokenizer(&|t| t["model"]["merges"][0] = json!(["a"]), "not a pair of known tokens");
    tokenizer(&|t| t["model"]["type"] = "Unigram".into(), "model.type: expected BPE");
    tokenizer(
        &|t| t["pre_tokenizer"] = Value::Null,
        "pre_tokenizer: expected the pattern of Qwen2",
    );
}

#[test]
fn checkpoints_that_gguf_cannot_hold_are_refused() {
    let irregular = edited("config.json", |config| {
        config["layer_types"][1] = "full_attention".into();
    });
    // Its tensors would be missing first.
    refused(&irregular, "layers.1.self_attn.q_proj.weight` is missing");
    let linear = LayerKind::LinearAttention;
    let kinds = [linear, LayerKind::FullAttention, linear, linear];
    let mut config = Source::open(&fixture("qwen3_5")).unwrap().config().clone();
    config.layers = kinds.to_vec();
    let error = metadata::put(&mut Header::new(), Path::new("x"), &config, WeightType::F32.into());
    assert!(error.unwrap_err().to_string().contains("irregular places"));

    let free = edited_model("qwen3_moe", "config.json", |config| {
        config["norm_topk_prob"] = false.into();
    });
    refused(&free, "`norm_topk_prob` is false");

    let broken = edited("config.json", |_| {});
    let path = broken.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&[0x80, 0x7F, 0x80, 0x7F]);
    fs::write(&path, bytes).unwrap();
    refused(&broken, "is inf");
}

#[test]
fn formats_that_are_only_read_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("a.gguf");
    let error = convert(&fixture("qwen3"), &out, WeightType::IQ4_NL).unwrap_err().to_string();
    assert!(error.contains("IQ4_NL cannot be written; possible: F32, BF16, F16, Q8_0"), "{error}");
    convert(&fixture("qwen3"), &out, WeightType::F16).unwrap();
    let error = convert(&out, &directory.path().join("b.gguf"), WeightType::F16).unwrap_err();
    assert!(error.to_string().contains("is a GGUF file already"), "{error}");
}

// The way by which a damaged GGUF file of a good kind is found out.
// Bad files 107, 108 and 110
#[test]
fn a_gguf_whose_parts_disagree_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.gguf");
    convert(&fixture("qwen3"), &path, WeightType::F32).unwrap();
    let good = fs::read(&path).unwrap();
    let check = |key: &str, value: u32, part: &str| {
        let mut bytes = good.clone();
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        bytes[at + key.len() + 4..][..4].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let Err(error) = Source::open(&path) else { panic!("{key} = {value} was accepted") };
        assert!(error.to_string().contains(part), "`{error}` does not say `{part}`");
    };
    let qwen3 = "general.architecture\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0qwen3";
    let at = good.windows(qwen3.len()).position(|window| window == qwen3.as_bytes()).unwrap();
    let mut bytes = good.clone();
    bytes[at + qwen3.len() - 1] = b'9';
    fs::write(&path, bytes).unwrap();
    let error = Source::open(&path).err().unwrap().to_string();
    let known = "supported: qwen3, qwen3moe, qwen35, qwen35moe, qwen3next";
    assert!(error.contains("`qwen9`") && error.ends_with(known), "{error}");

    check("qwen3.block_count", u32::MAX, "qwen3.block_count: expected 1 to 1024");
    check("qwen3.block_count", 0, "qwen3.block_count: expected 1 to 1024");
    check("qwen3.block_count", 4, "tensor `blk.3.attn_norm.weight` is missing");
    check("qwen3.attention.head_count", 0, "qwen3.attention.head_count: expected 1");
    check("qwen3.attention.head_count_kv", 3, "a divisor of 4");
    check("qwen3.attention.key_length", 16, "attention.value_length: expected 16");
    check("qwen3.feed_forward_length", 95, "expected the shape [95, 64], found [96, 64]");
    check("qwen3.rope.dimension_count", 7, "an even number, found 7");
    check("qwen3.context_length", 0, "qwen3.context_length: expected 1");
    check("qwen3.vocab_size", 255, "expected 256, the rows of `token_embd.weight`, found 255");
    let nan = f32::NAN.to_bits();
    check("qwen3.attention.layer_norm_rms_epsilon", nan, "between 0 and 1, found NaN");
    check("qwen3.attention.layer_norm_rms_epsilon", 0, "between 0 and 1, found 0");
    check("qwen3.rope.freq_base", nan, "rope.freq_base: expected at least 1, found NaN");
}

// Bad files 108 and 110
#[test]
fn a_gguf_whose_experts_cannot_be_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.gguf");
    convert(&fixture("qwen3_next"), &path, WeightType::F32).unwrap();
    let good = fs::read(&path).unwrap();
    let check = |key: &str, value: u32, part: &str| {
        let mut bytes = good.clone();
        let key = format!("qwen3next.{key}");
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        bytes[at + key.len() + 4..][..4].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let Err(error) = Source::open(&path) else { panic!("{key} = {value} was accepted") };
        let error = error.to_string();
        assert!(error.contains(part), "`{error}` does not say `{part}`");
    };
    check("expert_count", 0, "qwen3next.expert_count: expected 1 to 2048, found 0");
    check("expert_count", u32::MAX, "qwen3next.expert_count: expected 1 to 2048");
    check("expert_count", 9, "tensor `blk.0.ffn_gate_inp.weight`: expected the shape [9, 64]");
    check("expert_used_count", 9, "qwen3next.expert_used_count: expected 1 to 8, found 9");
    check("expert_used_count", 0, "qwen3next.expert_used_count: expected 1 to 8, found 0");
    check("expert_feed_forward_length", 0, "expert_feed_forward_length: expected 1 to");
    check("expert_feed_forward_length", 17, "expected the shape [8, 17, 64], found [8, 16, 64]");
    check("expert_shared_feed_forward_length", 7, "expected the shape [7, 64], found [32, 64]");
}
