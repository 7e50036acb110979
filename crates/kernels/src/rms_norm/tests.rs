use super::{cpu, reference};
use crate::check::{Noise, error_ratio, widen};

#[test]
fn the_kernel_equals_its_reference() {
    let mut noise = Noise::new(1);
    for cols in [1, 7, 8, 64, 160, 1000] {
        for scale in [1e-4, 1.0, 1e4] {
            let x = noise.values(cols, scale);
            let weight = noise.values(cols, 2.0);
            let want = reference::rms_norm(&widen(&x), &widen(&weight), 1e-6);
            let mut got = vec![f32::NAN; cols];
            cpu::rms_norm(&x, &weight, 1e-6, &mut got);
            assert!(error_ratio(&got, &want) <= 1e-6, "{cols} columns at {scale}");
            let mut got = x.clone();
            cpu::rms_norm_in_place(&mut got, &weight, 1e-6);
            assert!(error_ratio(&got, &want) <= 1e-6, "{cols} columns at {scale}, in place");
        }
    }
}

/// The mutation that must be caught: a forgotten `eps` moves small rows.
#[test]
fn a_forgotten_epsilon_is_seen() {
    let x = [1e-4f32; 16];
    let want = reference::rms_norm(&widen(&x), &[1.0; 16], 1e-6);
    let mut got = [0.0; 16];
    cpu::rms_norm(&x, &[1.0; 16], 0.0, &mut got);
    assert!(error_ratio(&got, &want) > 1e-3);
}
