use super::{
    Chosen, Expert, MoeShape, MoeWeights, RouteScratch, SharedExpert, cpu, reference, route,
};
use crate::check::{Noise, error_ratio, widen};
use crate::cpu::pool::Pool;
use crate::linear::cpu::{Matrix, Rounded};
use crate::quant::{WeightType, encoder};
use crate::weight::Weight;

const HIDDEN: usize = 64;
const SHAPE: MoeShape = MoeShape { experts: 8, top_k: 3, renormalise: true };

fn matrix(noise: &mut Noise, ty: WeightType, rows: usize, cols: usize) -> Weight {
    let values = noise.values(rows * cols, 0.3);
    let mut bytes = vec![0; rows * cols / ty.block_elements() * ty.block_bytes()];
    encoder(ty).expect("a format that can be written")(&values, &mut bytes);
    Weight::new(ty, rows, cols, bytes.into())
}

fn expert(noise: &mut Noise, ty: WeightType, ffn: usize) -> Expert<Weight> {
    Expert {
        gate: matrix(noise, ty, ffn, HIDDEN),
        up: matrix(noise, ty, ffn, HIDDEN),
        down: matrix(noise, ty, HIDDEN, ffn),
    }
}

/// Experts of 32 columns, a shared one of 96.
fn weights(ty: WeightType, shared: bool) -> MoeWeights<Weight> {
    let noise = &mut Noise::new(31);
    let experts = (0..SHAPE.experts).map(|_| expert(noise, ty, 32)).collect();
    let router = matrix(noise, WeightType::F32, SHAPE.experts, HIDDEN);
    let shared = shared.then(|| SharedExpert {
        gate: matrix(noise, WeightType::F32, 1, HIDDEN),
        expert: expert(noise, ty, 96),
    });
    MoeWeights { router, experts, shared }
}

/// The weights as the CPU keeps them.
fn loaded(pool: &Pool, weights: &MoeWeights<Weight>) -> MoeWeights<Matrix> {
    weights.map(|weight| Matrix::new(weight, pool))
}

fn mixture(threads: usize, shape: &MoeShape, weights: &MoeWeights<Weight>, x: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len()];
    let pool = Pool::new(threads);
    let (mut rounded, mut work) = (Rounded::default(), cpu::Work::default());
    cpu::moe(&pool, shape, &loaded(&pool, weights), x, &mut out, &mut rounded, &mut work);
    out
}

fn chosen(shape: &MoeShape, logits: &[f32]) -> Vec<Chosen> {
    route(shape, logits, &mut RouteScratch::default()).collect()
}

fn inputs(rows: usize) -> Vec<f32> {
    Noise::new(32).values(rows * HIDDEN, 1.5)
}

/// E1. Float formats lose only to single precision; 8-bit weights to inputs rounded twice as well.
#[test]
fn the_kernel_equals_its_reference() {
    for (ty, bound) in [(WeightType::F32, 1e-6), (WeightType::BF16, 1e-6), (WeightType::Q8_0, 2e-2)]
    {
        for shared in [false, true] {
            let weights = weights(ty, shared);
            for renormalise in [false, true] {
                for (top_k, rows) in [(1, 1), (3, 1), (3, 29), (8, 5)] {
                    let shape = MoeShape { top_k, renormalise, ..SHAPE };
                    let x = inputs(rows);
                    let want = reference::moe(&shape, &weights, &widen(&x));
                    let error = error_ratio(&mixture(2, &shape, &weights, &x), &want);
                    assert!(error <= bound, "{ty}, {shape:?}, {rows} rows: {error}");
                }
            }
        }
    }
}

/// Every mistake that a mixture can have is larger than the bound above.
#[test]
fn a_mistake_is_seen() {
    let (x, right) = (inputs(9), weights(WeightType::F32, true));
    let want = reference::moe(&SHAPE, &right, &widen(&x));
    let error = |shape: &MoeShape, weights: &MoeWeights<Weight>| {
        error_ratio(&mixture(1, shape, weights, &x), &want)
    };
    assert!(error(&SHAPE, &right) <= 1e-6);
    assert!(error(&MoeShape { renormalise: false, ..SHAPE }, &right) > 1e-3, "the sum of weights");
    assert!(error(&MoeShape { top_k: 2, ..SHAPE }, &right) > 1e-3, "one expert less");
    assert!(error(&SHAPE, &weights(WeightType::F32, false)) > 1e-3, "no shared expert");
    let mut wrong = weights(WeightType::F32, true);
    wrong.experts.swap(1, 2);
    assert!(error(&SHAPE, &wrong) > 1e-3, "experts in another order");
    let mut wrong = weights(WeightType::F32, true);
    for Expert { gate, up, .. } in &mut wrong.experts {
        std::mem::swap(gate, up);
    }
    assert!(error(&SHAPE, &wrong) > 1e-3, "gate for up");
    let mut wrong = weights(WeightType::F32, true);
    if let Some(shared) = &mut wrong.shared {
        shared.gate = Weight::from_f32(1, HIDDEN, &[0.0; HIDDEN]);
    }
    assert!(error(&SHAPE, &wrong) > 1e-3, "half of the shared expert for every row");
}

/// Of equals, the lower number; weights add up to 1 or are the probabilities themselves.
#[test]
fn ties_go_to_the_lowest_expert() {
    let ids = |shape: &MoeShape, logits: &[f32]| -> Vec<usize> {
        chosen(shape, logits).iter().map(|chosen| chosen.expert).collect()
    };
    let shape = MoeShape { experts: 6, top_k: 3, renormalise: true };
    assert_eq!(ids(&shape, &[0.0; 6]), [0, 1, 2]);
    assert_eq!(ids(&shape, &[1.0, 2.0, 1.0, 1.0, 3.0, 1.0]), [0, 1, 4]);
    // Far below the largest, both probabilities are zero in single precision.
    assert_eq!(ids(&shape, &[-500.0, -400.0, -500.0, 0.0, -300.0, -400.0]), [1, 3, 4]);
    for chosen in chosen(&shape, &[1.0; 6]) {
        assert_eq!(chosen.weight, 1.0 / 3.0);
    }
    for chosen in chosen(&MoeShape { renormalise: false, ..shape }, &[1.0; 6]) {
        assert_eq!(chosen.weight, 1.0 / 6.0);
    }
    let equal = weights(WeightType::F32, false);
    let rows = [0, 1, 0, 0, 1, 0, 1, 0];
    let rows: Vec<f32> =
        rows.iter().flat_map(|&row| equal.router.row_range(row..row + 1).to_f32()).collect();
    let equal = MoeWeights { router: Weight::from_f32(8, HIDDEN, &rows), ..equal };
    let x = inputs(16);
    let want = reference::moe(&SHAPE, &equal, &widen(&x));
    assert!(error_ratio(&mixture(2, &SHAPE, &equal, &x), &want) <= 1e-6);
}

/// A row is the same bit for bit alone, among others, and when all of them want the same experts.
/// Equality E4 rests on this.
#[test]
fn rows_do_not_depend_on_one_another() {
    for ty in [WeightType::F32, WeightType::Q8_0] {
        let weights = weights(ty, true);
        let mut x = inputs(13);
        let same = x[..HIDDEN].to_vec();
        for _ in 0..40 {
            x.extend_from_slice(&same);
        }
        let together = mixture(3, &SHAPE, &weights, &x);
        for (x, together) in x.chunks_exact(HIDDEN).zip(together.chunks_exact(HIDDEN)) {
            assert_eq!(mixture(1, &SHAPE, &weights, x), together, "{ty}");
        }
    }
}

/// Requirement 111 rests on this.
#[test]
fn a_broken_row_stays_broken_and_alone() {
    for broken in [f32::NAN, f32::INFINITY] {
        let weights = weights(WeightType::F32, false);
        let mut x = inputs(3);
        let sound = mixture(1, &SHAPE, &weights, &x);
        x[HIDDEN + 7] = broken;
        let out = mixture(1, &SHAPE, &weights, &x);
        assert!(out[HIDDEN..2 * HIDDEN].iter().all(|value| !value.is_finite()));
        assert_eq!((&out[..HIDDEN], &out[2 * HIDDEN..]), (&sound[..HIDDEN], &sound[2 * HIDDEN..]));
    }
    let logits = [0.0, f32::NAN, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert!(chosen(&SHAPE, &logits).iter().all(|chosen| chosen.weight.is_nan()));
}
