//! Input rows in 8 bits, one scale per 32.

use super::packed::CHUNK;
use crate::cpu::parts::Parts;
use crate::cpu::pool::Pool;
use crate::cpu::widest::widest;

/// The most input rows that a kernel multiplies at once.
pub(super) const PANEL: usize = 8;

/// The least magnitude whose inverse, times the steps, is a number. A chunk of smaller ones is
/// zero.
const LEAST: f32 = 1e-36;

/// Input rows rounded, in panels of up to [`PANEL`]; memory that is kept from one operation to the
/// next. A panel of `n` rows is `[chunks, n, …]`, and panels follow one another.
#[derive(Default)]
pub struct Rounded {
    rows: usize,
    /// Chunks of a row.
    chunks: usize,
    quants: Vec<[i8; CHUNK]>,
    scales: Vec<f32>,
    sums: Vec<f32>,
    halves: Vec<[i32; 2]>,
}

/// Up to [`PANEL`] input rows, see [`Rounded`].
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// Its first row.
    pub(super) first: usize,
    /// Its rows: 8, 4, 2 or 1.
    pub(super) rows: usize,
    /// `[chunks, rows, 32]`.
    pub(super) quants: &'a [[i8; CHUNK]],
    /// `[chunks, rows]`.
    pub(super) scales: &'a [f32],
    /// `[chunks, rows]`: the rounded inputs' sums, negated.
    pub(super) sums: &'a [f32],
    /// `[chunks, rows, 2]`: the sums of quants of each half, negated.
    pub(super) halves: &'a [[i32; 2]],
}

/// Where panels of `rows` rows begin, and how long they are.
fn panels(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let whole = (0..rows / PANEL).map(|at| (at * PANEL, PANEL));
    let rest = (0..PANEL.ilog2()).rev().map(|power| 1 << power);
    // The lower bits of the number of rows say which of 4, 2 and 1 are left, and those above where
    // each begins.
    let rest = rest.filter(move |size| rows & size != 0);
    whole.chain(rest.map(move |size| (rows / (2 * size) * 2 * size, size)))
}

impl Rounded {
    /// Rounds `values`, which are `[rows, cols]`.
    pub(super) fn fill(&mut self, pool: &Pool, values: &[f32], cols: usize) {
        (self.rows, self.chunks) = (values.len() / cols, cols / CHUNK);
        let all = self.rows * self.chunks;
        if self.quants.len() < all {
            self.quants.resize(all, [0; CHUNK]);
            self.scales.resize(all, 0.0);
            self.sums.resize(all, 0.0);
            self.halves.resize(all, [0; 2]);
        }
        let (rows, chunks) = (self.rows, self.chunks.max(1));
        let quants = Parts::new(&mut self.quants[..all], chunks);
        let scales = Parts::new(&mut self.scales[..all], chunks);
        let sums = Parts::new(&mut self.sums[..all], chunks);
        let halves = Parts::new(&mut self.halves[..all], chunks);
        pool.run(rows.div_ceil(PANEL), |task| {
            let start = task * PANEL;
            for (first, size) in panels(PANEL.min(rows - start)) {
                let first = start + first;
                // SAFETY: panels are apart and each belongs to one task.
                let (quants, scales) =
                    unsafe { (quants.run(first, size), scales.run(first, size)) };
                // SAFETY: as above.
                let (sums, halves) = unsafe { (sums.run(first, size), halves.run(first, size)) };
                let values = &values[first * cols..(first + size) * cols];
                for (row, values) in values.chunks_exact(cols).enumerate() {
                    round_row(size, row, values, quants, scales, halves);
                }
                for ((sum, halves), scale) in sums.iter_mut().zip(halves).zip(scales) {
                    *sum = (halves[0] + halves[1]) as f32 * *scale;
                }
            }
        });
    }

    pub(super) fn panels(&self) -> impl Iterator<Item = Panel<'_>> {
        panels(self.rows).map(|(first, rows)| {
            let part = first * self.chunks..(first + rows) * self.chunks;
            Panel {
                first,
                rows,
                quants: &self.quants[part.clone()],
                scales: &self.scales[part.clone()],
                sums: &self.sums[part.clone()],
                halves: &self.halves[part],
            }
        })
    }
}

widest! {
    /// To the nearest of 255 steps between a chunk's largest magnitudes. A value that is not finite
    /// makes the scale so: it must reach the logits, where its row is ended.
    fn round_row(
        rows: usize,
        row: usize,
        values: &[f32],
        quants: &mut [[i8; CHUNK]],
        scales: &mut [f32],
        halves: &mut [[i32; 2]],
    ) {
        let (values, _) = values.as_chunks::<CHUNK>();
        for (chunk, values) in values.iter().enumerate() {
            let at = chunk * rows + row;
            let mut largest = 0u32;
            for value in values {
                // Magnitudes compare as their bits do, those that are not finite above all.
                largest = largest.max(value.to_bits() & 0x7fff_ffff);
            }
            let largest = f32::from_bits(largest);
            let sound = largest < f32::INFINITY;
            let kept = sound && largest >= LEAST;
            let inverse = if kept { 127.0 / largest } else { 0.0 };
            scales[at] = if sound { largest / 127.0 } else { f32::NAN };
            let mut whole = [0i32; CHUNK];
            for (whole, value) in whole.iter_mut().zip(values) {
                // What is not kept may be no number, of which no product is 0.
                let value = if kept { *value } else { 0.0 };
                // Adding 1.5 * 2^23 leaves the nearest integer in the lowest bits, ties to even.
                let rounded = value * inverse + 12_582_912.0;
                *whole = rounded.to_bits() as i32 - 0x4b40_0000;
            }
            for (quant, whole) in quants[at].iter_mut().zip(&whole) {
                *quant = *whole as i8;
            }
            let (low, high) = whole.split_at(CHUNK / 2);
            halves[at] = [-low.iter().sum::<i32>(), -high.iter().sum::<i32>()];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Noise;

    /// What is no number, and what is too small to divide by, has the sums that its quants have.
    #[test]
    fn chunks_that_cannot_be_rounded_are_zeros() {
        for (value, sound) in [
            (f32::NAN, false),
            (-f32::NAN, false),
            (f32::NEG_INFINITY, false),
            (1e-45, true),
            (3e-37, true),
            (0.0, true),
        ] {
            let mut rounded = Rounded::default();
            rounded.fill(&Pool::new(1), &[value; CHUNK], CHUNK);
            let panel = rounded.panels().next().expect("a row");
            assert_eq!((panel.quants[0], panel.halves[0]), ([0; CHUNK], [0; 2]), "{value}");
            assert_eq!((panel.scales[0].is_nan(), panel.sums[0].is_nan()), (!sound, !sound));
        }
    }

    /// Rounding is off by at most half a step, and panels lie as they say.
    #[test]
    fn rounded_inputs_are_half_a_step_off() {
        let (rows, cols) = (15, 96);
        let values = Noise::new(2).values(rows * cols, 3.0);
        let mut rounded = Rounded::default();
        rounded.fill(&Pool::new(2), &values, cols);
        let sizes: Vec<_> = rounded.panels().map(|panel| (panel.first, panel.rows)).collect();
        assert_eq!(sizes, [(0, 8), (8, 4), (12, 2), (14, 1)]);
        for panel in rounded.panels() {
            for (at, quants) in panel.quants.iter().enumerate() {
                let row = panel.first + at % panel.rows;
                let start = row * cols + at / panel.rows * CHUNK;
                let scale = panel.scales[at];
                for (quant, value) in quants.iter().zip(&values[start..]) {
                    let error = (f32::from(*quant) * scale - value).abs();
                    assert!(error <= scale * 0.501, "{quant} * {scale} for {value}");
                }
                let sum: i32 = quants.iter().map(|quant| i32::from(*quant)).sum();
                assert_eq!(sum, -(panel.halves[at][0] + panel.halves[at][1]));
                assert_eq!(panel.sums[at], -sum as f32 * scale);
            }
        }
    }
}
