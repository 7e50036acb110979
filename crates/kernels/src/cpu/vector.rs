//! Arithmetic on vectors that several operations share.

use super::widest::{fused, widest};

/// `exp(x)` without branches, so that loops over it fill registers. The relative error is below
/// 2e-7 from -87 to 88; above it is infinite, below it stays at the least. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that subtracting multiples of it loses nothing.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding it leaves the nearest integer in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    let too_large = x > 88.0;
    let x = if too_large { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = fused::<FMA>(x, LOG2_E, MAGIC);
    let whole = shifted - MAGIC;
    let rest = fused::<FMA>(whole, -LN_2_LOW, fused::<FMA>(whole, -LN_2_HIGH, x));
    // The Taylor series: at |rest| <= ln 2 / 2 the first term left out is below 2^-27.
    let mut sum = 1.0 / 5040.0;
    for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = fused::<FMA>(sum, rest, term);
    }
    let power = shifted.to_bits().wrapping_sub(0x4b40_0000).wrapping_add(127) << 23;
    let value = sum * f32::from_bits(power);
    if too_large { f32::INFINITY } else { value }
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn silu<const FMA: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FMA>(-x))
}

/// Lanes of a sum.
const LANES: usize = 16;

/// Halves the lanes until one is left.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

widest! {
    /// `sum of a[i] * b[i]` over the shorter of the two.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        let (a, a_rest) = a.as_chunks::<LANES>();
        let (b, b_rest) = b.as_chunks::<LANES>();
        let mut sums = [0.0f32; LANES];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                sums[lane] = fused::<FMA>(a[lane], b[lane], sums[lane]);
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        fold(sums, |a, b| a + b) + rest
    }

    /// Makes `scores` weights: `exp(scale * (score - highest))`. Returns one over their sum.
    pub(crate) fn softmax(scores: &mut [f32], scale: f32) -> f32 {
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let (wide, rest) = scores.as_chunks_mut::<LANES>();
        let mut highest = [f32::NEG_INFINITY; LANES];
        for scores in wide.iter() {
            for lane in 0..LANES {
                highest[lane] = larger(highest[lane], scores[lane]);
            }
        }
        let highest = rest.iter().fold(fold(highest, larger), |a, b| larger(a, *b));
        let mut sums = [0.0f32; LANES];
        for scores in wide {
            for lane in 0..LANES {
                scores[lane] = exp::<FMA>(scale * (scores[lane] - highest));
                sums[lane] += scores[lane];
            }
        }
        let mut sum = fold(sums, |a, b| a + b);
        for score in rest {
            *score = exp::<FMA>(scale * (*score - highest));
            sum += *score;
        }
        1.0 / sum
    }

    /// `x *= sigmoid(gate)`, element by element.
    pub(crate) fn gate(x: &mut [f32], gate: &[f32]) {
        for (x, gate) in x.iter_mut().zip(gate) {
            *x /= 1.0 + exp::<FMA>(-gate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Noise, error_ratio};

    #[test]
    fn exp_is_as_close_as_it_says() {
        for fma in [false, true] {
            for step in -8700..=8800 {
                let x = step as f32 * 0.01;
                let got = if fma { exp::<true>(x) } else { exp::<false>(x) };
                let want = f64::from(x).exp();
                let error = (f64::from(got) - want).abs() / want;
                assert!(error <= 2e-7, "exp({x}) = {got}, off by {error}");
            }
        }
        assert_eq!(exp::<true>(0.0), 1.0);
        assert!(exp::<true>(f32::NAN).is_nan());
        assert!(exp::<true>(-1e9) < 1e-37 && exp::<true>(1e9) == f32::INFINITY);
    }

    #[test]
    fn dots_and_softmax_equal_their_definitions() {
        for len in [1usize, 15, 16, 17, 100] {
            let mut noise = Noise::new(12);
            let (a, b) = (noise.values(len, 1.0), noise.values(len, 1.0));
            let pairs = a.iter().zip(&b);
            let want: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&a, &b)) - want).abs() <= 1e-5);
            let scores: Vec<f32> = a.iter().map(|a| a * 90.0).collect();
            let mut weights = scores.clone();
            let inverse = softmax(&mut weights, 0.5);
            weights.iter_mut().for_each(|weight| *weight *= inverse);
            let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exp = |score: &f32| (0.5 * (f64::from(*score) - f64::from(highest))).exp();
            let total: f64 = scores.iter().map(exp).sum();
            let want: Vec<f64> = scores.iter().map(|score| exp(score) / total).collect();
            assert!(error_ratio(&weights, &want) <= 1e-6);
        }
    }
}
