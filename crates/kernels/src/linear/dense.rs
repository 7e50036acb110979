//! Weights that multiply in single precision: float formats, and those without a packed form.

use crate::cpu::widest::{fused, widest};
use crate::quant::{WeightType, dequantize};
use crate::weight::Weight;

/// Weight rows that are multiplied at once.
pub(super) const ROWS: usize = 4;

/// Lanes of a sum; a dot product is that many sums, added at the end.
const LANES: usize = 16;

/// Decodes up to [`ROWS`] rows from `first` into `out`; rows past the end are zero.
pub(super) fn decode(weight: &Weight, first: usize, out: &mut Vec<f32>) {
    out.clear();
    out.resize(ROWS * weight.cols, 0.0);
    let rows = first..(first + ROWS).min(weight.rows);
    for (row, out) in rows.zip(out.chunks_exact_mut(weight.cols)) {
        match weight.ty {
            WeightType::F32 => decode_f32(weight.row(row), out),
            WeightType::BF16 => decode_bf16(weight.row(row), out),
            ty => dequantize(ty, weight.row(row), out),
        }
    }
}

widest! {
    fn decode_f32(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
            *out = f32::from_le_bytes(*bytes);
        }
    }

    fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }

    /// The products of [`ROWS`] rows, one after the other in `weights`, with `x`.
    pub(super) fn dots(weights: &[f32], x: &[f32]) -> [f32; ROWS] {
        let (a, rest) = weights.split_at(x.len());
        let (b, rest) = rest.split_at(x.len());
        let (c, d) = rest.split_at(x.len());
        let (x, x_rest) = x.as_chunks::<LANES>();
        let rows = [a, b, c, &d[..a.len()]].map(|row| row.as_chunks::<LANES>());
        let [a, b, c, d] = rows.map(|(wide, _)| &wide[..x.len()]);
        let mut sums = [[0.0f32; LANES]; ROWS];
        for (at, x) in x.iter().enumerate() {
            for lane in 0..LANES {
                sums[0][lane] = fused::<FMA>(a[at][lane], x[lane], sums[0][lane]);
                sums[1][lane] = fused::<FMA>(b[at][lane], x[lane], sums[1][lane]);
                sums[2][lane] = fused::<FMA>(c[at][lane], x[lane], sums[2][lane]);
                sums[3][lane] = fused::<FMA>(d[at][lane], x[lane], sums[3][lane]);
            }
        }
        let mut dots = [0.0; ROWS];
        for ((dot, sums), (_, rest)) in dots.iter_mut().zip(&mut sums).zip(rows) {
            let mut width = LANES / 2;
            while width > 0 {
                for lane in 0..width {
                    sums[lane] += sums[lane + width];
                }
                width /= 2;
            }
            *dot = sums[0] + rest.iter().zip(x_rest).map(|(w, x)| w * x).sum::<f32>();
        }
        dots
    }
}
