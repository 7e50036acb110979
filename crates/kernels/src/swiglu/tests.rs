use super::swiglu;
use crate::check::{Noise, error_ratio};

#[test]
fn the_kernel_equals_the_formula() {
    let gate_up = Noise::new(2).values(2 * 37, 8.0);
    let want: Vec<f64> = (0..37)
        .map(|at| {
            let (gate, up) = (f64::from(gate_up[at]), f64::from(gate_up[37 + at]));
            gate / (1.0 + (-gate).exp()) * up
        })
        .collect();
    let mut got = [f32::NAN; 37];
    swiglu(&gate_up, &mut got);
    assert!(error_ratio(&got, &want) <= 1e-6);
}

#[test]
fn large_gates_do_not_overflow() {
    let mut got = [0.0; 2];
    swiglu(&[-1e30, 1e30, 1.0, 1.0], &mut got);
    assert_eq!(got, [-0.0, 1e30]);
}
