//! The tiny checkpoints in `fixtures/`, opened as a user would.

use std::path::PathBuf;

use kernels::quant::WeightType;
use model::{
    Architecture, ExpertLayout, LayerKind, Layout, Role, Source, TensorName, ValueHeadOrder,
};

fn open(name: &str) -> Source {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", name].iter().collect();
    Source::open(&path).unwrap()
}

#[test]
fn the_dense_checkpoint_opens() {
    let source = open("qwen3");
    let config = source.config();
    assert_eq!(config.architecture, Architecture::Qwen3);
    assert_eq!(config.layers, [LayerKind::FullAttention; 3]);
    assert_eq!(
        (config.hidden, config.ffn, config.vocab_size, config.rotary_dim),
        (64, 96, 256, 32)
    );
    assert!(config.tied);
    assert!(source.tensor(TensorName::Output).is_err());
    let k = source.tensor(TensorName::Layer(2, Role::K)).unwrap();
    assert_eq!((k.name, k.ty), ("model.layers.2.self_attn.k_proj.weight", WeightType::BF16));
    assert_eq!((k.rows(), k.row_elements(), k.row(63).len()), (64, 64, 128));
    assert!(k.to_f32().iter().all(|x| x.is_finite()));
    assert_eq!(source.warnings(), [""; 0]);
}

#[test]
fn the_hybrid_checkpoint_opens() {
    let source = open("qwen3_5");
    let config = source.config();
    let (linear, full) = (LayerKind::LinearAttention, LayerKind::FullAttention);
    assert_eq!(config.layers, [linear, linear, linear, full, linear, linear, linear, full]);
    assert_eq!((config.rotary_dim, config.mtp_layers, config.tied), (8, 1, false));
    let delta = config.delta.unwrap();
    assert_eq!((delta.key_heads, delta.value_heads, delta.channels()), (2, 4, 256));
    assert_eq!(delta.value_head_order, ValueHeadOrder::Grouped);
    let q = source.tensor(TensorName::Layer(3, Role::Q)).unwrap();
    assert_eq!(q.shape, [256, 64]);
    let conv = source.tensor(TensorName::Layer(0, Role::DeltaConv)).unwrap();
    assert_eq!(conv.shape, [256, 4]);
    let a = source.tensor(TensorName::Layer(0, Role::DeltaA)).unwrap();
    assert_eq!((a.name, a.ty), ("model.layers.0.linear_attn.A_log", WeightType::F32));
    assert_eq!(TensorName::all(config).len(), 3 + 6 * 14 + 2 * 11 + 4 + 11);
}

/// Each of the three keeps its experts in another way.
#[test]
fn the_checkpoints_with_experts_open() {
    let dense = open("qwen3_moe");
    assert_eq!(dense.config().layout, Layout::default());
    assert_eq!(TensorName::all(dense.config()).len(), 2 + 3 * (8 + 1 + 3 * 8));
    let hybrid = open("qwen3_5_moe");
    let fused = Layout { experts: ExpertLayout::Fused, ..Layout::default() };
    assert_eq!(hybrid.config().layout, fused);
    assert_eq!(TensorName::all(hybrid.config()).len(), 3 + 3 * 11 + 8 + 4 * (1 + 2 + 4));
    let next = open("qwen3_next");
    let single = Layout { experts: ExpertLayout::Single, fused_qkvz: true, fused_ba: true };
    assert_eq!(next.config().layout, single);
    assert_eq!(TensorName::all(next.config()).len(), 3 + 3 * 9 + 8 + 4 * (1 + 24 + 4));

    let up = hybrid.matrix(TensorName::Layer(0, Role::ExpertUp(1))).unwrap();
    let whole = hybrid.tensor(TensorName::Layer(0, Role::ExpertsGateUp)).unwrap();
    assert_eq!((up.rows, up.cols), (16, 64));
    assert_eq!(up.row(0), whole.row(2 * 16 + 16), "up follows gate");
}
