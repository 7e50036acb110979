use super::super::{MoeWeights, reference};
use super::*;
use crate::backend::Backend;
use crate::check::{Noise, error_ratio, widen};
use crate::cuda::on_card;
use crate::quant::encoder;

fn matrix(noise: &mut Noise, ty: WeightType, rows: usize, cols: usize) -> Weight {
    let values = noise.values(rows * cols, 0.3);
    let mut bytes = vec![0; rows * cols / ty.block_elements() * ty.block_bytes()];
    encoder(ty).expect("a format that can be written")(&values, &mut bytes);
    Weight::new(ty, rows, cols, bytes.into())
}

fn expert(noise: &mut Noise, ty: WeightType, hidden: usize, ffn: usize) -> Expert<Weight> {
    let mut matrix = |rows, cols| matrix(noise, ty, rows, cols);
    Expert { gate: matrix(ffn, hidden), up: matrix(ffn, hidden), down: matrix(hidden, ffn) }
}

/// E1 on a card: with more experts than a warp has lanes, with and without a shared one, for
/// formats of all three sizes of blocks.
#[test]
fn equals_its_reference_on_a_card() {
    let Some(mut cuda) = on_card::cuda() else { return };
    for (ty, hidden, ffn) in
        [(WeightType::BF16, 40, 24), (WeightType::Q8_0, 64, 96), (WeightType::Q4_K, 256, 256)]
    {
        for (experts, top_k, renormalise, rows) in
            [(8, 3, true, 29), (70, 8, false, 5), (8, 8, true, 1), (33, 1, true, 3)]
        {
            let noise = &mut Noise::new(31);
            let shape = MoeShape { experts, top_k, renormalise };
            let shared = (experts == 8).then(|| SharedExpert {
                gate: matrix(noise, WeightType::F32, 1, hidden),
                expert: expert(noise, ty, hidden, 256),
            });
            let weights = MoeWeights {
                router: matrix(noise, WeightType::F32, experts, hidden),
                experts: (0..experts).map(|_| expert(noise, ty, hidden, ffn)).collect(),
                shared,
            };
            let x = noise.values(rows * hidden, 1.5);
            let want = reference::moe(&shape, &weights, &widen(&x));
            cuda.begin_step(on_card::step(&[(rows, 0)], 16));
            let mixture = cuda.mixture(&shape, &weights);
            assert_eq!(cuda.ready(), Ok(()));
            let mut scratch = mixture.scratch(&cuda.context, rows);
            let x = on_card::buffer(&cuda, &x);
            let mut out = on_card::poisoned(&cuda, rows, hidden);
            moe(&cuda, &mixture, &x, &mut scratch, &mut out);
            let error = error_ratio(&on_card::values(&cuda, &out), &want);
            // The router and the shared expert multiply floats as sums of two bfloat16, and meet
            // quantised weights with inputs of 11 bits.
            let bound = if ty == WeightType::BF16 { 1e-4 } else { 2e-3 };
            assert!(error <= bound, "{ty}, {shape:?}, {rows} rows: {error}");
        }
    }
}
