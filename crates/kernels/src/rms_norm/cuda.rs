//! The launch on a card.

use crate::cuda::{Address, Buffer, Cuda, Grid};

/// Normalises `rows` rows of `x` into `out`; row `i` is row `rows_of[i]` of `x`, or row `i` itself
/// without `rows_of`.
pub(crate) fn rms_norm(
    cuda: &Cuda,
    x: &Buffer<f32>,
    rows_of: Option<Address>,
    weight: &Buffer<f32>,
    eps: f32,
    rows: usize,
    out: &Buffer<f32>,
) {
    let cols = weight.len();
    cuda.launch("rms_norm", Grid::line(rows as u32, threads(cols)))
        .arg(x)
        .arg(rows_of.unwrap_or(Address::NONE))
        .arg(weight)
        .arg(eps)
        .arg(cols)
        .arg(out)
        .overlapping()
        .run();
}

/// A whole number of warps, at most a block.
pub(crate) fn threads(cols: usize) -> u32 {
    (cols.next_multiple_of(32) as u32).min(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Noise, error_ratio, widen};
    use crate::cuda::on_card;
    use crate::rms_norm::reference;

    #[test]
    fn threads_are_whole_warps() {
        assert_eq!([1, 33, 5120].map(threads), [32, 64, 1024]);
    }

    /// E1 on a card: all rows, and some of them in an order of their own.
    #[test]
    fn equals_its_reference_on_a_card() {
        let Some(cuda) = on_card::cuda() else { return };
        for cols in [32, 63, 1024, 5120] {
            let noise = &mut Noise::new(2);
            let (x, weight) = (noise.values(5 * cols, 30.0), noise.values(cols, 2.0));
            let want: Vec<f64> = (x.chunks_exact(cols))
                .flat_map(|x| reference::rms_norm(&widen(x), &widen(&weight), f64::from(1e-6_f32)))
                .collect();
            let (x, weight) = (on_card::buffer(&cuda, &x), on_card::buffer(&cuda, &weight));
            let out = on_card::poisoned(&cuda, 5, cols);
            rms_norm(&cuda, &x, None, &weight, 1e-6, 5, &out.values);
            let error = error_ratio(&on_card::values(&cuda, &out), &want);
            assert!(error <= 1e-6, "{cols}: {error}");
            let chosen = on_card::buffer(&cuda, &[4_i32, 1]);
            rms_norm(&cuda, &x, Some(chosen.at(0)), &weight, 1e-6, 2, &out.values);
            let want = [&want[4 * cols..], &want[cols..2 * cols]].concat();
            let error = error_ratio(&on_card::values(&cuda, &out)[..2 * cols], &want);
            assert!(error <= 1e-6, "{cols}, chosen rows: {error}");
        }
    }
}
