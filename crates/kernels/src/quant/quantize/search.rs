//! The search for the scale of a group: a grid of guesses, each improved by least squares.
//!
//! Errors are weighted by the magnitude of the element: a matrix product sees a large weight's
//! error more often than a small one's, since the inputs of the layer are unknown here.
//!
//! All guesses are tried at once, one a lane, element by element. No two operations are fused, so
//! that every processor writes the same bytes.

use crate::cpu::widest::widest;

/// Guesses of a search.
const GUESSES: usize = 16;

/// One number for each guess.
type Lanes = [f32; GUESSES];

/// Groups with a smaller range become zeros: their scale would round to zero as a half.
const SMALLEST_RANGE: f32 = 1e-12;

/// A group stored as q * scale - minimum, with q from 0 to the number of steps.
#[derive(Clone, Copy, Default)]
pub(super) struct Affine {
    pub(super) scale: f32,
    /// Never negative: the formats store it without a sign.
    pub(super) minimum: f32,
}

/// The nearest whole number, of two the even one, of numbers below 2^22.
#[inline(always)]
fn round(x: f32) -> f32 {
    // At this size the bits that are left are the whole part.
    const WHOLE: f32 = (1 << 23) as f32 + (1 << 22) as f32;
    (x + WHOLE) - WHOLE
}

/// The whole number nearest to `x` from `least` to `most`.
#[inline(always)]
fn nearest(x: f32, least: f32, most: f32) -> f32 {
    // Written so that it is one instruction each; a NaN becomes `least`.
    let x = if x > least { x } else { least };
    round(if x < most { x } else { most })
}

#[inline(always)]
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The guess with the greatest score, the first of equals, if any is above `least`.
#[inline(always)]
fn best(scores: &Lanes, least: f32) -> Option<usize> {
    let mut best = (None, least);
    for (lane, &score) in scores.iter().enumerate() {
        if score > best.1 {
            best = (Some(lane), score);
        }
    }
    best.0
}

widest! {
    /// The scale and minimum with which `values` lose least.
    pub(super) fn affine(values: &[f32; 32], steps: f32) -> Affine {
        let low = values.iter().fold(0.0_f32, |low, &x| if x < low { x } else { low });
        let high = values.iter().fold(f32::MIN, |high, &x| if x > high { x } else { high });
        if high - low <= SMALLEST_RANGE {
            // Every element is the same negative number, or zero: the minimum alone says it.
            return Affine { scale: 0.0, minimum: -low };
        }
        let mean_square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        let weights = values.map(|x| mean_square.sqrt() + x.abs());
        // From a range a little narrower than the values' own to one a little wider.
        let mut starts = [0.0; GUESSES];
        for (guess, start) in starts.iter_mut().enumerate() {
            *start = (steps - 1.0 + 2.0 / 15.0 * guess as f32) / (high - low);
        }
        let fits = least_squares(values, &weights, low, &starts, steps);
        let errors = errors(values, &weights, &fits, steps);
        let plain = Affine { scale: (high - low) / steps, minimum: -low };
        let of_plain = self::errors(values, &weights, &[plain; GUESSES], steps);
        let gains = errors.map(|error| -error);
        best(&gains, -of_plain[0]).map_or(plain, |lane| fits[lane])
    }

    /// The elements of a group from 0 to `steps`, for a reader who sees `fit`.
    pub(super) fn affine_elements(values: &[f32; 32], fit: Affine, steps: f32) -> [u8; 32] {
        let inverse = inverse(fit.scale);
        values.map(|x| nearest((x + fit.minimum) * inverse, 0.0, steps) as u8)
    }

    /// The scale with which `values` lose least when stored as q * scale, q from -steps to
    /// steps - 1.
    ///
    /// The scale may be negative, so that the largest element can take the longer end.
    pub(super) fn symmetric(values: &[f32; 16], steps: f32) -> f32 {
        let largest =
            values.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most });
        if largest.abs() <= SMALLEST_RANGE {
            return 0.0;
        }
        let mut inverses = [0.0; GUESSES];
        for (guess, inverse) in inverses.iter_mut().enumerate() {
            *inverse = -(steps - 0.9 + 0.12 * guess as f32) / largest;
        }
        let (mut wqx, mut wqq) = ([0.0; GUESSES], [0.0; GUESSES]);
        for &x in values {
            let w = x * x;
            for lane in 0..GUESSES {
                let q = nearest(x * inverses[lane], -steps, steps - 1.0);
                wqx[lane] += w * q * x;
                wqq[lane] += w * q * q;
            }
        }
        // With the best scale wqx / wqq the error falls by wqx^2 / wqq.
        let mut gains = [0.0; GUESSES];
        for lane in 0..GUESSES {
            gains[lane] = wqx[lane] * wqx[lane] * inverse(wqq[lane]);
        }
        best(&gains, 0.0).map_or(0.0, |lane| wqx[lane] / wqq[lane])
    }

    /// The elements of a group from 0 to 2 * steps - 1, `steps` being zero, for a reader who sees
    /// `scale`.
    pub(super) fn symmetric_elements(values: &[f32; 16], scale: f32, steps: f32) -> [u8; 16] {
        let inverse = inverse(scale);
        values.map(|x| (nearest(x * inverse, -steps, steps - 1.0) + steps) as u8)
    }
}

/// The scales and minimums that fit best when every element keeps the q of its guess, which is
/// (x - low) * start.
#[inline(always)]
fn least_squares(
    values: &[f32; 32],
    weights: &[f32; 32],
    low: f32,
    starts: &Lanes,
    steps: f32,
) -> [Affine; GUESSES] {
    let (mut wq, mut wqq, mut wqx) = ([0.0; GUESSES], [0.0; GUESSES], [0.0; GUESSES]);
    let (mut w_, mut wx) = (0.0, 0.0);
    for (&x, &w) in values.iter().zip(weights) {
        w_ += w;
        wx += w * x;
        for lane in 0..GUESSES {
            let q = nearest((x - low) * starts[lane], 0.0, steps);
            wq[lane] += w * q;
            wqq[lane] += w * q * q;
            wqx[lane] += w * q * x;
        }
    }
    let mut fits = [Affine::default(); GUESSES];
    for (lane, fit) in fits.iter_mut().enumerate() {
        let (wq, wqq, wqx) = (wq[lane], wqq[lane], wqx[lane]);
        let determinant = w_ * wqq - wq * wq;
        let scale = (w_ * wqx - wq * wx) / determinant;
        let minimum = (wq * wqx - wqq * wx) / determinant;
        *fit = if determinant <= 0.0 {
            Affine { scale: 1.0 / starts[lane], minimum: -low }
        } else if minimum < 0.0 {
            // The format cannot store it: the best line through zero instead.
            Affine { scale: wqx / wqq, minimum: 0.0 }
        } else {
            Affine { scale, minimum }
        };
    }
    fits
}

/// Weighted squared errors of `values` stored with each fit.
#[inline(always)]
fn errors(values: &[f32; 32], weights: &[f32; 32], fits: &[Affine; GUESSES], steps: f32) -> Lanes {
    let (scales, minimums) = (fits.map(|fit| fit.scale), fits.map(|fit| fit.minimum));
    let inverses = scales.map(inverse);
    let mut errors = [0.0; GUESSES];
    for (&x, &w) in values.iter().zip(weights) {
        for lane in 0..GUESSES {
            let q = nearest((x + minimums[lane]) * inverses[lane], 0.0, steps);
            let difference = q * scales[lane] - minimums[lane] - x;
            errors[lane] += w * difference * difference;
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_in_range() {
        for (x, expected) in [(0.4, 0.0), (0.6, 1.0), (2.5, 2.0), (-7.9, -8.0), (99.0, 15.0)] {
            assert_eq!(nearest(x, -9.0, 15.0), expected);
        }
        assert_eq!(nearest(f32::NAN, 0.0, 15.0), 0.0);
        assert_eq!(nearest(f32::INFINITY, 0.0, 63.0), 63.0);
    }

    #[test]
    fn of_equal_scores_the_first_wins_and_none_if_none_is_above() {
        let mut scores = [1.0; GUESSES];
        assert_eq!(best(&scores, 1.0), None);
        (scores[5], scores[9]) = (2.0, 2.0);
        assert_eq!(best(&scores, 1.0), Some(5));
        scores[7] = f32::NAN;
        assert_eq!(best(&scores, 1.0), Some(5));
    }

    /// Values that lie on a grid are found again, whatever the grid.
    #[test]
    fn a_grid_is_found() {
        for (scale, minimum) in [(0.01, 0.07), (0.5, 0.0), (3.0, 20.0)] {
            let values = std::array::from_fn(|i| (i % 16) as f32 * scale - minimum);
            let fit = affine(&values, 15.0);
            assert!((fit.scale - scale).abs() < 1e-5 * scale, "{} for {scale}", fit.scale);
            assert!((fit.minimum - minimum).abs() < 1e-5 * (scale + minimum));
            let elements = affine_elements(&values, fit, 15.0);
            assert!((0..32).all(|i| elements[i] as usize == i % 16));
        }
        let values = std::array::from_fn(|i| 0.25 * (2.0 * i as f32 - 16.0));
        assert!((symmetric(&values, 16.0) - 0.25).abs() < 1e-5);
        let elements = symmetric_elements(&values, 0.25, 16.0);
        assert!((0..16).all(|i| elements[i] as usize == 2 * i));
    }
}
