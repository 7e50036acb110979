//! Dot products in the widest registers that the processor has.
//!
//! Which version runs is decided once for the process, so a result never depends on who asks.

use std::sync::OnceLock;

/// Elements of a block of 8-bit inputs, which share a scale.
pub(super) const BLOCK: usize = 32;
/// Elements of weights that share a scale and a minimum, once unpacked.
pub(super) const GROUP: usize = 16;

type DotF32 = fn(&[f32], &[f32]) -> f32;
type DotI8 = fn(&[i8], &[f32], &[i8], &[f32]) -> f32;

struct Kernels {
    dot_f32: DotF32,
    dot_i8: DotI8,
}

static KERNELS: OnceLock<Kernels> = OnceLock::new();

fn kernels() -> &'static Kernels {
    KERNELS.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            if avx2 && avx512 {
                return x86::AVX512;
            }
            if avx2 {
                return x86::AVX2;
            }
        }
        PORTABLE
    })
}

/// `sum of a[i] * b[i]`.
///
/// # Panics
/// When the lengths differ.
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "a dot product of vectors of two lengths");
    (kernels().dot_f32)(a, b)
}

/// `sum of weights[i] * scales[i / 16] * inputs[i] * input_scales[i / 32]`; the length is a
/// multiple of 32.
pub(super) fn dot_i8(weights: &[i8], scales: &[f32], inputs: &[i8], input_scales: &[f32]) -> f32 {
    assert!(weights.len() == inputs.len() && weights.len().is_multiple_of(BLOCK));
    assert!(scales.len() == weights.len() / GROUP && input_scales.len() == weights.len() / BLOCK);
    (kernels().dot_i8)(weights, scales, inputs, input_scales)
}

const PORTABLE: Kernels = Kernels { dot_f32: portable_f32, dot_i8: portable_i8 };

pub(super) fn portable_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut partial = [0.0f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            partial[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    partial.iter().sum::<f32>() + rest
}

pub(super) fn portable_i8(
    weights: &[i8],
    scales: &[f32],
    inputs: &[i8],
    input_scales: &[f32],
) -> f32 {
    let groups = weights.chunks_exact(GROUP).zip(inputs.chunks_exact(GROUP)).zip(scales);
    groups
        .enumerate()
        .map(|(at, ((weights, inputs), scale))| {
            let pairs = weights.iter().zip(inputs);
            let sum: i32 = pairs.map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
            sum as f32 * scale * input_scales[at / 2]
        })
        .sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Kernels};

    pub(super) const AVX2: Kernels = Kernels {
        // SAFETY: `kernels` hands these out only after it has seen the processor's features.
        dot_f32: |a, b| unsafe { avx2_f32(a, b) },
        dot_i8: |w, s, x, t| unsafe { avx2_i8(w, s, x, t) },
    };

    pub(super) const AVX512: Kernels = Kernels {
        // SAFETY: as above.
        dot_f32: |a, b| unsafe { avx512_f32(a, b) },
        dot_i8: |w, s, x, t| unsafe { avx512_i8(w, s, x, t) },
    };

    #[target_feature(enable = "avx2,fma")]
    fn sum_256(v: __m256) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2_f32(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 4];
        let (wide_a, rest_a) = a.as_chunks::<32>();
        let (wide_b, rest_b) = b.as_chunks::<32>();
        for (a, b) in wide_a.iter().zip(wide_b) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: lane < 4, so the eight floats at 8 * lane are within the 32.
                let (a, b) = unsafe {
                    let at = 8 * lane;
                    (_mm256_loadu_ps(a.as_ptr().add(at)), _mm256_loadu_ps(b.as_ptr().add(at)))
                };
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        let low = _mm256_add_ps(sums[0], sums[1]);
        let high = _mm256_add_ps(sums[2], sums[3]);
        sum_256(_mm256_add_ps(low, high)) + super::portable_f32(rest_a, rest_b)
    }

    #[target_feature(enable = "avx512f")]
    fn avx512_f32(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 4];
        let (wide_a, rest_a) = a.as_chunks::<64>();
        let (wide_b, rest_b) = b.as_chunks::<64>();
        for (a, b) in wide_a.iter().zip(wide_b) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: lane < 4, so the sixteen floats at 16 * lane are within the 64.
                let (a, b) = unsafe {
                    let at = 16 * lane;
                    (_mm512_loadu_ps(a.as_ptr().add(at)), _mm512_loadu_ps(b.as_ptr().add(at)))
                };
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        let (wide_a, rest_a) = rest_a.as_chunks::<16>();
        let (wide_b, rest_b) = rest_b.as_chunks::<16>();
        for (a, b) in wide_a.iter().zip(wide_b) {
            // SAFETY: both are sixteen floats.
            let (a, b) = unsafe { (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr())) };
            sums[0] = _mm512_fmadd_ps(a, b, sums[0]);
        }
        let low = _mm512_add_ps(sums[0], sums[1]);
        let high = _mm512_add_ps(sums[2], sums[3]);
        _mm512_reduce_add_ps(_mm512_add_ps(low, high)) + super::portable_f32(rest_a, rest_b)
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2_i8(weights: &[i8], scales: &[f32], inputs: &[i8], input_scales: &[f32]) -> f32 {
        let mut sum = _mm256_setzero_ps();
        let (weights, _) = weights.as_chunks::<BLOCK>();
        let (inputs, _) = inputs.as_chunks::<BLOCK>();
        for (at, (w, x)) in weights.iter().zip(inputs).enumerate() {
            for half in 0..2 {
                // SAFETY: both blocks have 32 bytes; sixteen from 16 * half are within them.
                let (w, x) = unsafe {
                    let w = _mm_loadu_si128(w.as_ptr().add(16 * half).cast());
                    let x = _mm_loadu_si128(x.as_ptr().add(16 * half).cast());
                    (_mm256_cvtepi8_epi16(w), _mm256_cvtepi8_epi16(x))
                };
                let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(w, x));
                let scale = _mm256_set1_ps(scales[2 * at + half] * input_scales[at]);
                sum = _mm256_fmadd_ps(products, scale, sum);
            }
        }
        sum_256(sum)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn avx512_i8(weights: &[i8], scales: &[f32], inputs: &[i8], input_scales: &[f32]) -> f32 {
        let mut sum = _mm512_setzero_ps();
        let (weights, _) = weights.as_chunks::<BLOCK>();
        let (inputs, _) = inputs.as_chunks::<BLOCK>();
        let (scales, _) = scales.as_chunks::<2>();
        let blocks = weights.iter().zip(inputs).zip(scales).zip(input_scales);
        for (((w, x), scales), input_scale) in blocks {
            // SAFETY: both blocks have 32 bytes.
            let (w, x) = unsafe {
                let w = _mm256_loadu_si256(w.as_ptr().cast());
                let x = _mm256_loadu_si256(x.as_ptr().cast());
                (_mm512_cvtepi8_epi16(w), _mm512_cvtepi8_epi16(x))
            };
            let products = _mm512_cvtepi32_ps(_mm512_madd_epi16(w, x));
            let low = _mm512_set1_ps(scales[0] * input_scale);
            let scale = _mm512_insertf32x8::<1>(low, _mm256_set1_ps(scales[1] * input_scale));
            sum = _mm512_fmadd_ps(products, scale, sum);
        }
        _mm512_reduce_add_ps(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Noise;

    #[test]
    fn every_version_equals_the_portable_one() {
        let mut noise = Noise::new(12);
        for len in [1usize, 15, 16, 31, 64, 65, 200, 256] {
            let (a, b) = (noise.values(len, 1.0), noise.values(len, 1.0));
            let error = (dot_f32(&a, &b) - portable_f32(&a, &b)).abs();
            assert!(error <= 1e-5, "f32 of length {len}: {error}");
        }
        for blocks in [1usize, 2, 5, 8] {
            let mut bytes = || noise.bits() as i8;
            let w: Vec<i8> = (0..blocks * BLOCK).map(|_| bytes()).collect();
            let x: Vec<i8> = (0..blocks * BLOCK).map(|_| bytes()).collect();
            let scales = noise.values(2 * blocks, 0.01);
            let input_scales = noise.values(blocks, 0.01);
            let got = dot_i8(&w, &scales, &x, &input_scales);
            let want = portable_i8(&w, &scales, &x, &input_scales);
            assert!((got - want).abs() <= 1e-4, "{blocks} blocks: {got} for {want}");
        }
    }
}
