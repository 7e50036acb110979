//! The search for the scale of a group: a grid of guesses, each improved by least squares.
//!
//! Errors are weighted by the magnitude of the element: a matrix product sees a large weight's
//! error more often than a small one's, since the inputs of the layer are unknown here.

/// A group stored as q * scale - minimum, with q from 0 to the number of steps.
#[derive(Clone, Copy, Default)]
pub(super) struct Affine {
    pub(super) scale: f32,
    /// Never negative: the formats store it without a sign.
    pub(super) minimum: f32,
}

/// The best q in 0..=steps for `x`.
pub(super) fn nearest(x: f32, fit: Affine, steps: f32) -> f32 {
    if fit.scale == 0.0 {
        return 0.0;
    }
    ((x + fit.minimum) / fit.scale).round().clamp(0.0, steps)
}

/// Weighted squared error of `values` stored with `fit`.
fn affine_error(values: &[f32], weights: &[f32], fit: Affine, steps: f32) -> f32 {
    let errors = values.iter().zip(weights).map(|(&x, &w)| {
        let difference = nearest(x, fit, steps) * fit.scale - fit.minimum - x;
        w * difference * difference
    });
    errors.sum()
}

/// The scale and minimum with which `values` lose least.
pub(super) fn affine(values: &[f32; 32], steps: f32) -> Affine {
    let low = values.iter().fold(0.0_f32, |low, &x| low.min(x));
    let high = values.iter().fold(f32::MIN, |high, &x| high.max(x));
    if high <= low {
        // Every element is the same negative number, or zero: the minimum alone says it.
        return Affine { scale: 0.0, minimum: -low };
    }
    let mean_square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
    let weights = values.map(|x| mean_square.sqrt() + x.abs());
    let mut best = Affine { scale: (high - low) / steps, minimum: -low };
    let mut least = affine_error(values, &weights, best, steps);
    for guess in 0..=20 {
        // From a range a little narrower than the values' own to one a little wider.
        let span = steps - 1.0 + 0.1 * guess as f32;
        let start = Affine { scale: (high - low) / span, minimum: -low };
        let fit = least_squares(values, &weights, start, steps);
        let error = affine_error(values, &weights, fit, steps);
        if error < least {
            (best, least) = (fit, error);
        }
    }
    best
}

/// The scale and minimum that fit best when every element keeps the q that `start` gives it.
fn least_squares(values: &[f32], weights: &[f32], start: Affine, steps: f32) -> Affine {
    let (mut w_, mut wq, mut wqq, mut wx, mut wqx) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (&x, &w) in values.iter().zip(weights) {
        let q = nearest(x, start, steps);
        w_ += w;
        wq += w * q;
        wqq += w * q * q;
        wx += w * x;
        wqx += w * q * x;
    }
    let determinant = w_ * wqq - wq * wq;
    if determinant <= 0.0 {
        return start;
    }
    let scale = (w_ * wqx - wq * wx) / determinant;
    let minimum = (wq * wqx - wqq * wx) / determinant;
    if minimum < 0.0 {
        // The format cannot store it: the best line through zero instead.
        return Affine { scale: if wqq > 0.0 { wqx / wqq } else { start.scale }, minimum: 0.0 };
    }
    Affine { scale, minimum }
}

/// The scale with which `values` lose least when stored as q * scale, q from -steps to steps - 1.
///
/// The scale may be negative, so that the largest element can take the longer end.
pub(super) fn symmetric(values: &[f32], steps: f32) -> f32 {
    let largest =
        values.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    if largest == 0.0 {
        return 0.0;
    }
    let (mut best, mut most) = (0.0, 0.0);
    for guess in -9..=9 {
        let inverse = -(steps + 0.1 * guess as f32) / largest;
        let (mut wqx, mut wqq) = (0.0_f32, 0.0_f32);
        for &x in values {
            let q = (x * inverse).round().clamp(-steps, steps - 1.0);
            let w = x * x;
            wqx += w * q * x;
            wqq += w * q * q;
        }
        // With the best scale wqx / wqq the error falls by wqx^2 / wqq.
        if wqq > 0.0 && wqx * wqx > most * wqq {
            (best, most) = (wqx / wqq, wqx * wqx / wqq);
        }
    }
    best
}
