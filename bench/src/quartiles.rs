//! The middle of some samples and how far they spread around it.

use serde::Serialize;

/// Three cuts of sorted samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quartiles {
    /// A quarter lies below.
    pub(crate) lower: f64,
    /// Half lies below.
    pub(crate) median: f64,
    /// Three quarters lie below.
    pub(crate) upper: f64,
}

impl Quartiles {
    /// Linear between the two samples next to a cut; zeros without samples.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let cut = |share: f64| {
            let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
            let place = share * last as f64;
            let below = sorted[place.floor() as usize];
            below + (sorted[place.ceil() as usize] - below) * place.fract()
        };
        Self { lower: cut(0.25), median: cut(0.5), upper: cut(0.75) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_lie_between_samples() {
        let all = Quartiles::of(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(all, Quartiles { lower: 2.0, median: 3.0, upper: 4.0 });
        assert_eq!(Quartiles::of(&[1.0, 2.0]).median, 1.5);
        assert_eq!(Quartiles::of(&[7.0]).upper, 7.0);
        assert_eq!(Quartiles::of(&[]).median, 0.0);
    }
}
