use super::cpu::{KvCache, Scratch, attend};
use super::{AttentionShape, reference};
use crate::backend::KvShape;
use crate::check::{Noise, error_ratio, widen};

fn shape(gated: bool) -> AttentionShape {
    AttentionShape {
        heads: 6,
        kv_heads: 2,
        head_dim: 16,
        rotary_dim: 16,
        rope_theta: 1e4,
        gated,
        eps: 1e-6,
    }
}

/// Fills the cache with noise through the block table and returns keys and values in order.
fn fill(cache: &mut KvCache, blocks: &[u32], tokens: usize, scale: f32) -> [Vec<Vec<f64>>; 2] {
    let mut noise = Noise::new(4);
    let mut keys = vec![Vec::new(); cache.shape.kv_heads];
    let mut values = keys.clone();
    for token in 0..tokens {
        for head in 0..cache.shape.kv_heads {
            let key = noise.values(cache.shape.head_dim, scale);
            let value = noise.values(cache.shape.head_dim, 1.0);
            keys[head].extend(widen(&key));
            values[head].extend(widen(&value));
            cache.put(blocks, head, token, &key, &value);
        }
    }
    [keys, values]
}

fn check(gated: bool, tokens: usize, scale: f32) -> f64 {
    let shape = shape(gated);
    let kv = KvShape { blocks: 12, block_size: 4, kv_heads: 2, head_dim: 16 };
    let mut cache = KvCache::new(kv);
    // What no token of this sequence wrote must not be read.
    cache.keys.fill(f32::NAN);
    cache.values.fill(f32::NAN);
    let blocks = [7, 2, 9, 0, 11, 3];
    let [keys, values] = fill(&mut cache, &blocks, tokens, scale);
    let row = Noise::new(5).values(shape.cols(), scale);
    let mut worst = 0.0f64;
    for kv_head in 0..2 {
        let mut got = [f32::NAN; 3 * 16];
        let mut rows = [(&row[..], &mut got[..])];
        attend(&shape, &cache, &blocks, tokens - 1, kv_head, &mut rows, &mut Scratch::default());
        for (at, got) in got.chunks_exact(16).enumerate() {
            let start = (kv_head * 3 + at) * shape.query_stride();
            let query = widen(&row[start..start + 16]);
            let mut want = reference::attention(&query, &keys[kv_head], &values[kv_head]);
            if gated {
                for (want, gate) in want.iter_mut().zip(&row[start + 16..start + 32]) {
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
    for gated in [false, true] {
        for tokens in [1, 3, 4, 5, 8, 23] {
            let error = check(gated, tokens, 1.0);
            assert!(error <= 1e-5, "{tokens} tokens, gated {gated}: {error}");
        }
    }
}

#[test]
fn extreme_logits_do_not_overflow() {
    let error = check(false, 20, 100.0);
    assert!(error <= 1e-4, "{error}");
}

/// A row's result is the same bit for bit whichever rows are computed with it.
#[test]
fn rows_do_not_depend_on_one_another() {
    let shape = shape(true);
    for block_size in [4, 16] {
        let kv = KvShape { blocks: 12, block_size, kv_heads: 2, head_dim: 16 };
        let mut cache = KvCache::new(kv);
        let blocks = [7, 2, 9, 0, 11, 3];
        fill(&mut cache, &blocks, 23, 2.0);
        let rows: Vec<_> = (0..4).map(|at| Noise::new(at).values(shape.cols(), 2.0)).collect();
        let mut scratch = Scratch::default();
        let mut together = vec![f32::NAN; 4 * 48];
        let mut parts: Vec<_> =
            rows.iter().map(Vec::as_slice).zip(together.chunks_exact_mut(48)).collect();
        attend(&shape, &cache, &blocks, 17, 1, &mut parts, &mut scratch);
        for (at, (row, together)) in rows.iter().zip(together.chunks_exact(48)).enumerate() {
            let mut alone = vec![f32::NAN; 48];
            attend(&shape, &cache, &blocks, 17 + at, 1, &mut [(row, &mut alone)], &mut scratch);
            assert_eq!(alone, together, "row {at}");
        }
    }
}
