use super::cache::{Blocks, Element};
use super::cpu::{Scratch, attend};
use super::{AttentionShape, reference};
use crate::backend::KvShape;
use crate::check::{Noise, error_ratio, widen};

/// Blocks of a sequence, in no order.
const BLOCKS: [u32; 14] = [7, 2, 9, 0, 11, 3, 13, 1, 4, 12, 5, 10, 6, 8];

fn shape(gated: bool, head_dim: usize) -> AttentionShape {
    AttentionShape {
        heads: 6,
        kv_heads: 2,
        head_dim,
        rotary_dim: 16,
        rope_theta: 1e4,
        gated,
        eps: 1e-6,
    }
}

/// Fills the cache with noise through the block table and returns keys and values in order.
fn fill<T: Element>(
    cache: &mut Blocks<T>,
    blocks: &[u32],
    tokens: usize,
    scale: f32,
) -> [Vec<Vec<f64>>; 2] {
    let mut noise = Noise::new(4);
    let mut keys = vec![Vec::new(); cache.shape.kv_heads];
    let mut values = keys.clone();
    for token in 0..tokens {
        for head in 0..cache.shape.kv_heads {
            let key = noise.values(cache.shape.head_dim, scale);
            let value = noise.values(cache.shape.head_dim, 1.0);
            cache.put(blocks, head, token, &key, &value);
            // What the cache rounds is no error of the sums over it.
            let (key, value) = cache.token(blocks, head, token);
            keys[head].extend(widen(&key));
            values[head].extend(widen(&value));
        }
    }
    [keys, values]
}

fn check<T: Element>(shape: AttentionShape, block_size: usize, tokens: usize, scale: f32) -> f64 {
    let dim = shape.head_dim;
    let kv = KvShape { blocks: 15, block_size, kv_heads: 2, head_dim: dim };
    let mut cache = Blocks::<T>::new(kv);
    // What no token of this sequence wrote must not be read.
    let mut broken = [T::default()];
    T::round(&[f32::NAN], &mut broken);
    cache.keys.fill(broken[0]);
    cache.values.fill(broken[0]);
    let [keys, values] = fill(&mut cache, &BLOCKS, tokens, scale);
    let row = Noise::new(5).values(shape.cols(), scale);
    let mut worst = 0.0f64;
    for kv_head in 0..2 {
        let mut got = vec![f32::NAN; 3 * dim];
        let mut rows = [(&row[..], &mut got[..])];
        attend(&shape, &cache, &BLOCKS, tokens - 1, kv_head, &mut rows, &mut Scratch::default());
        for (at, got) in got.chunks_exact(dim).enumerate() {
            let start = (kv_head * 3 + at) * shape.query_stride();
            let query = widen(&row[start..start + dim]);
            let mut want = reference::attention(&query, &keys[kv_head], &values[kv_head]);
            if shape.gated {
                for (want, gate) in want.iter_mut().zip(&row[start + dim..start + 2 * dim]) {
                    *want /= 1.0 + (-f64::from(*gate)).exp();
                }
            }
            worst = worst.max(error_ratio(got, &want));
        }
    }
    worst
}

#[test]
fn the_kernel_equals_its_reference() {
    for (block_size, longest) in [(4, 55), (16, 219)] {
        for dim in [16, 24, 128] {
            for tokens in [1, 3, 4, 5, 8, 17, 23, 31, 32, longest] {
                for gated in [false, true] {
                    let shape = shape(gated, dim);
                    let half = check::<u16>(shape, block_size, tokens, 1.0);
                    let single = check::<f32>(shape, block_size, tokens, 1.0);
                    let error = half.max(single);
                    assert!(error <= 1e-5, "{tokens} in {block_size}, {shape:?}: {error}");
                }
            }
        }
    }
}

#[test]
fn extreme_logits_do_not_overflow() {
    let error = check::<u16>(shape(false, 16), 4, 20, 100.0);
    assert!(error <= 1e-4, "{error}");
}

/// A row's result is the same bit for bit whichever rows are computed with it.
#[test]
fn rows_do_not_depend_on_one_another() {
    for (block_size, dim) in [(4, 16), (16, 16), (16, 24), (16, 128)] {
        let shape = shape(true, dim);
        let kv = KvShape { blocks: 15, block_size, kv_heads: 2, head_dim: dim };
        let mut cache = Blocks::<u16>::new(kv);
        fill(&mut cache, &BLOCKS, 50, 2.0);
        let rows: Vec<_> = (0..4).map(|at| Noise::new(at).values(shape.cols(), 2.0)).collect();
        let mut scratch = Scratch::default();
        let mut together = vec![f32::NAN; 4 * 3 * dim];
        let mut parts: Vec<_> =
            rows.iter().map(Vec::as_slice).zip(together.chunks_exact_mut(3 * dim)).collect();
        attend(&shape, &cache, &BLOCKS, 46, 1, &mut parts, &mut scratch);
        for (at, (row, together)) in rows.iter().zip(together.chunks_exact(3 * dim)).enumerate() {
            let mut alone = vec![f32::NAN; 3 * dim];
            attend(&shape, &cache, &BLOCKS, 46 + at, 1, &mut [(row, &mut alone)], &mut scratch);
            assert_eq!(alone, together, "row {at}");
        }
    }
}
