use super::cpu::{frequencies, norm_and_rotate, rotation};
use super::reference::rotate;
use crate::backend::KvShape;
use crate::check::{Noise, error_ratio, widen};
use crate::paged_attention::AttentionShape;
use crate::paged_attention::cache::Blocks;
use crate::rms_norm::reference::rms_norm;

fn shape(gated: bool, rotary_dim: usize) -> AttentionShape {
    AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        rotary_dim,
        rope_theta: 1e7,
        gated,
        eps: 1e-6,
    }
}

fn check(shape: AttentionShape, token: usize) {
    let mut noise = Noise::new(6);
    let row = noise.values(shape.cols(), 1.0);
    let (q_norm, k_norm) = (noise.values(32, 2.0), noise.values(32, 2.0));
    let kv = KvShape { blocks: 4, block_size: 4, kv_heads: 2, head_dim: 32 };
    let mut cache = Blocks::<u16>::new(kv);
    let mut blocks = vec![0; token / 4];
    blocks.push(3);
    let mut got = row.clone();
    let frequencies: Vec<_> = frequencies(&shape).collect();
    let rotation: Vec<_> = rotation(&frequencies, token).collect();
    norm_and_rotate(&shape, &mut got, (&q_norm, &k_norm), &rotation);
    let parts = cache.parts();
    for head in 0..2 {
        // SAFETY: one after the other.
        unsafe { parts.put(&shape, head, &got, &blocks, token) };
    }

    let head = |start: usize, norm: &[f32]| {
        let mut head = rms_norm(&widen(&row[start..start + 32]), &widen(norm), 1e-6);
        rotate(&mut head, shape.rotary_dim, shape.rope_theta, token);
        head
    };
    for at in 0..shape.heads {
        let start = at * shape.query_stride();
        let error = error_ratio(&got[start..start + 32], &head(start, &q_norm));
        assert!(error <= 1e-6, "query {at} of {shape:?} at {token}: {error}");
        let gate = start + 32..start + shape.query_stride();
        assert_eq!(got[gate.clone()], row[gate], "the gate is no query");
    }
    for at in 0..shape.kv_heads {
        let start = shape.query_cols() + at * 32;
        let (stored_key, stored_value) = cache.token(&blocks, at, token);
        let error = error_ratio(&stored_key, &head(start, &k_norm));
        assert!(error <= 5e-4, "key {at} of {shape:?} at {token}: {error}");
        let value = start + shape.kv_cols();
        // Half precision rounds by at most 2^-11 of a number.
        let error = error_ratio(&stored_value, &widen(&row[value..value + 32]));
        assert!(error <= 5e-4, "value {at} of {shape:?} at {token}: {error}");
    }
}

#[test]
fn the_kernel_equals_its_reference() {
    for gated in [false, true] {
        for rotary_dim in [8, 32] {
            for token in [0, 1, 5, 262_143] {
                check(shape(gated, rotary_dim), token);
            }
        }
    }
}
