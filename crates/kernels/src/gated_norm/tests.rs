use super::gated_norm;
use crate::check::{Noise, error_ratio, widen};
use crate::rms_norm::reference::rms_norm;

#[test]
fn the_kernel_equals_the_formula() {
    let mut noise = Noise::new(3);
    let (heads, dim) = (3, 32);
    let o = noise.values(heads * dim, 2.0);
    let z = noise.values(heads * dim, 4.0);
    let weight = noise.values(dim, 1.5);
    let want: Vec<f64> = (0..heads)
        .flat_map(|head| rms_norm(&widen(&o[head * dim..][..dim]), &widen(&weight), 1e-6))
        .zip(&z)
        .map(|(o, z)| o * f64::from(*z) / (1.0 + (-f64::from(*z)).exp()))
        .collect();
    let mut got = o;
    gated_norm(&mut got, &z, &weight, 1e-6);
    assert!(error_ratio(&got, &want) <= 1e-6);
}
