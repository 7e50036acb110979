//! Input rows in 8 bits, one scale per 32.

use super::packed::CHUNK;
use crate::cpu::pool::Pool;
use crate::cpu::widest::widest;

/// The most input rows that a kernel multiplies at once.
pub(super) const PANEL: usize = 8;

/// Input rows rounded, in panels of up to [`PANEL`]. A panel of `n` rows is `[chunks, n, …]`.
pub(super) struct Rounded {
    panels: Vec<Panel>,
}

/// See [`Rounded`].
pub(super) struct Panel {
    /// Its first row.
    pub(super) first: usize,
    /// Its rows: 8, 4, 2 or 1.
    pub(super) rows: usize,
    /// `[chunks, rows, 32]`.
    pub(super) quants: Vec<i8>,
    /// `[chunks, rows]`.
    pub(super) scales: Vec<f32>,
    /// `[chunks, rows]`: the rounded inputs' sums, negated.
    pub(super) sums: Vec<f32>,
    /// `[chunks, rows, 2]`: the sums of quants of each half, negated.
    pub(super) halves: Vec<i32>,
}

impl Rounded {
    /// Rounds `values`, which are `[rows, cols]`.
    pub(super) fn new(pool: &Pool, values: &[f32], cols: usize) -> Self {
        let mut panels = Vec::new();
        let (mut first, rows) = (0, values.len() / cols);
        while first < rows {
            let left = rows - first;
            let take = if left >= PANEL { PANEL } else { 1 << left.ilog2() };
            panels.push(std::sync::Mutex::new(Panel::new(first, take, cols)));
            first += take;
        }
        pool.run(panels.len(), |at| {
            let mut panel = panels[at].lock().expect("a panel is rounded once");
            let rows = panel.first * cols..(panel.first + panel.rows) * cols;
            panel.round(&values[rows], cols);
        });
        let panels = panels.into_iter().map(|panel| panel.into_inner().expect("as above"));
        Self { panels: panels.collect() }
    }

    pub(super) fn panels(&self) -> &[Panel] {
        &self.panels
    }
}

impl Panel {
    fn new(first: usize, rows: usize, cols: usize) -> Self {
        let chunks = cols / CHUNK * rows;
        Self {
            first,
            rows,
            quants: vec![0; chunks * CHUNK],
            scales: vec![0.0; chunks],
            sums: vec![0.0; chunks],
            halves: vec![0; 2 * chunks],
        }
    }

    fn round(&mut self, values: &[f32], cols: usize) {
        let (quants, _) = self.quants.as_chunks_mut::<CHUNK>();
        let (halves, _) = self.halves.as_chunks_mut::<2>();
        for (row, values) in values.chunks_exact(cols).enumerate() {
            round_row(self.rows, row, values, quants, &mut self.scales, halves);
        }
        let sums = self.sums.iter_mut().zip(halves).zip(&self.scales);
        sums.for_each(|((sum, halves), scale)| *sum = (halves[0] + halves[1]) as f32 * scale);
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
            let inverse = if largest > 0.0 && sound { 127.0 / largest } else { 0.0 };
            scales[at] = if sound { largest / 127.0 } else { f32::NAN };
            let mut whole = [0i32; CHUNK];
            for (whole, value) in whole.iter_mut().zip(values) {
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

    /// Rounding is off by at most half a step, and panels lie as they say.
    #[test]
    fn rounded_inputs_are_half_a_step_off() {
        let (rows, cols) = (15, 96);
        let values = Noise::new(2).values(rows * cols, 3.0);
        let rounded = Rounded::new(&Pool::new(2), &values, cols);
        let sizes: Vec<_> = rounded.panels().iter().map(|panel| panel.rows).collect();
        assert_eq!(sizes, [8, 4, 2, 1]);
        for panel in rounded.panels() {
            for (at, quants) in panel.quants.chunks_exact(CHUNK).enumerate() {
                let row = panel.first + at % panel.rows;
                let start = row * cols + at / panel.rows * CHUNK;
                let scale = panel.scales[at];
                for (quant, value) in quants.iter().zip(&values[start..]) {
                    let error = (f32::from(*quant) * scale - value).abs();
                    assert!(error <= scale * 0.501, "{quant} * {scale} for {value}");
                }
                let sum: i32 = quants.iter().map(|quant| i32::from(*quant)).sum();
                assert_eq!(sum, -(panel.halves[2 * at] + panel.halves[2 * at + 1]));
                assert_eq!(panel.sums[at], -sum as f32 * scale);
            }
        }
    }
}
