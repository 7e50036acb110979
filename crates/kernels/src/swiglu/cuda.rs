//! The launch on a card.

use crate::cuda::{Cuda, Grid, Tensor};

/// `out = silu(gate) * up` over the step's rows.
pub(crate) fn swiglu(cuda: &Cuda, gate_up: &Tensor, out: &mut Tensor) {
    assert_eq!(gate_up.cols, 2 * out.cols, "columns of gate and up");
    cuda.launch("swiglu", Grid::over(cuda.rows() * out.cols, 256))
        .arg(&gate_up.values)
        .arg(&out.values)
        .arg(cuda.rows())
        .arg(out.cols)
        .overlapping()
        .run();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::check::{Noise, error_ratio};
    use crate::cuda::on_card;

    /// E1 on a card, for widths that are no multiple of a block.
    #[test]
    fn equals_its_formula_on_a_card() {
        let Some(mut cuda) = on_card::cuda() else { return };
        for (rows, cols) in [(1, 12288), (3, 7), (65, 257)] {
            let x = Noise::new(1).values(rows * 2 * cols, 6.0);
            let gate_up = on_card::tensor(&cuda, 2 * cols, &x);
            let mut out = on_card::poisoned(&cuda, rows, cols);
            cuda.begin_step(on_card::step(&[(rows, 0)], 16));
            swiglu(&cuda, &gate_up, &mut out);
            let want: Vec<f64> = (x.chunks_exact(2 * cols))
                .flat_map(|x| {
                    let (gate, up) = x.split_at(cols);
                    let pairs = gate.iter().zip(up);
                    pairs.map(|(gate, up)| {
                        let gate = f64::from(*gate);
                        gate / (1.0 + (-gate).exp()) * f64::from(*up)
                    })
                })
                .collect();
            let error = error_ratio(&on_card::values(&cuda, &out), &want);
            assert!(error <= 1e-6, "{rows} by {cols}: {error}");
        }
    }
}
