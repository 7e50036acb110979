//! Floats as the bytes that lie in host memory, and back: a copy, every bit as it was.

const BYTES: usize = size_of::<f32>();

/// Writes `values` over all of `bytes`.
pub(super) fn save(values: &[f32], bytes: &mut [u8]) {
    assert_eq!(bytes.len(), values.len() * BYTES, "the room is not that of the values");
    for (bytes, value) in bytes.chunks_exact_mut(BYTES).zip(values) {
        bytes.copy_from_slice(&value.to_ne_bytes());
    }
}

/// Reads all of `values` back.
pub(super) fn load(bytes: &[u8], values: &mut [f32]) {
    assert_eq!(bytes.len(), values.len() * BYTES, "the bytes are not those of the values");
    for (bytes, value) in bytes.as_chunks::<BYTES>().0.iter().zip(values) {
        *value = f32::from_ne_bytes(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use crate::Backend;
    use crate::backend::KvShape;
    use crate::check::Noise;
    use crate::cpu::Cpu;

    /// Another block and another slot hold the same bits afterwards, and their neighbours what
    /// they held; bits that are no number come back like all others.
    #[test]
    fn blocks_and_slots_come_back_bit_for_bit() {
        let mut cpu = Cpu::new(1);
        let shape = KvShape { blocks: 3, block_size: 4, kv_heads: 2, head_dim: 8 };
        let mut cache = cpu.kv_cache(shape);
        let mut noise = Noise::new(7);
        cache.keys.fill_with(|| noise.value());
        cache.values.fill_with(|| noise.value());
        cache.keys[2] = f32::from_bits(0x7fc0_1234);
        let before: Vec<_> = cache.keys.iter().chain(&cache.values).map(|v| v.to_bits()).collect();
        let mut bytes = vec![0; cpu.block_bytes(&cache)];
        cpu.save_block(&cache, 0, &mut bytes);
        cpu.load_block(&mut cache, 2, &bytes);
        let after: Vec<_> = cache.keys.iter().chain(&cache.values).map(|v| v.to_bits()).collect();
        let (all, size) = (cache.keys.len(), cache.keys.len() / 3);
        for half in [0, all] {
            assert_eq!(after[half + 2 * size..half + all], before[half..half + size]);
            assert_eq!(after[half..half + 2 * size], before[half..half + 2 * size]);
        }

        let mut state = cpu.state(3, 5);
        state.values.fill_with(|| noise.value());
        let before = state.values.clone();
        let mut bytes = vec![0; cpu.state_bytes(&state)];
        cpu.save_state(&state, 2, &mut bytes);
        cpu.load_state(&mut state, 0, &bytes);
        assert_eq!(state.values[..5], before[10..]);
        assert_eq!(state.values[5..], before[5..]);
    }
}
