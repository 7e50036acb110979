//! A counter-based random generator: Philox 4x32 with ten rounds (Salmon et al., "Parallel random
//! numbers: as easy as 1, 2, 3", 2011). It has no state, so any thread can compute any draw.

const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

pub(super) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let low = MULTIPLIERS[0] * u64::from(counter[0]);
        let high = MULTIPLIERS[1] * u64::from(counter[2]);
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// Uniform in [0, 1), for this seed and position.
pub fn uniform(seed: u64, position: u64) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, 0, 0];
    let [low, high, ..] = philox(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = u64::from(low) | u64::from(high) << 32;
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
