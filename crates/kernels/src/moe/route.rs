//! Which experts a row uses, and how much of each.

use super::MoeShape;

/// An expert of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// Its number.
    pub expert: usize,
    /// What its output is multiplied by.
    pub weight: f32,
}

/// Memory of [`route`], kept from one row to the next.
#[derive(Default)]
pub struct Scratch {
    exponents: Vec<f32>,
    order: Vec<usize>,
}

/// The experts of a row with these router logits, in the order of their numbers.
///
/// Logits that are not finite give weights that are not: such a row must not look sound.
pub fn route<'a>(
    shape: &MoeShape,
    logits: &[f32],
    scratch: &'a mut Scratch,
) -> impl Iterator<Item = Chosen> + 'a {
    let Scratch { exponents, order } = scratch;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    exponents.clear();
    exponents.extend(logits.iter().map(|logit| (logit - largest).exp()));
    // A logit that is NaN is no maximum; its exponent makes the sum NaN.
    let total: f32 = exponents.iter().sum();
    order.clear();
    order.extend(0..logits.len());
    // Logits, not probabilities: two logits can be apart and their exponents both round to zero.
    let best = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if shape.top_k < order.len() {
        // Numbers make the order total, so which are selected does not depend on how.
        order.select_nth_unstable_by(shape.top_k, best);
        order.truncate(shape.top_k);
    }
    order.sort_unstable();
    let kept: f32 = order.iter().map(|&expert| exponents[expert]).sum();
    // The total divides out, but a total that is not a number must not.
    let whole = if shape.renormalise && total.is_finite() { kept } else { total };
    order.iter().map(move |&expert| Chosen { expert, weight: exponents[expert] / whole })
}
