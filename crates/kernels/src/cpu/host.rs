//! Numbers as the bytes that lie in host memory, and back: a copy, every bit as it was.

/// Writes `values` over all of `bytes`.
pub(super) fn save<T: Copy, const N: usize>(
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
    bytes: &mut [u8],
) {
    assert_eq!(bytes.len(), values.len() * N, "the room is not that of the values");
    for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = to_bytes(*value);
    }
}

/// Reads all of `values` back.
pub(super) fn load<T, const N: usize>(
    bytes: &[u8],
    from_bytes: impl Fn([u8; N]) -> T,
    values: &mut [T],
) {
    assert_eq!(bytes.len(), values.len() * N, "the bytes are not those of the values");
    for (bytes, value) in bytes.as_chunks().0.iter().zip(values) {
        *value = from_bytes(*bytes);
    }
}

/// [`save`] of two runs that are equally long, one behind the other.
pub(super) fn save_both<T: Copy, const N: usize>(
    [first, second]: [&[T]; 2],
    to_bytes: impl Fn(T) -> [u8; N],
    bytes: &mut [u8],
) {
    let (first_bytes, second_bytes) = bytes.split_at_mut(bytes.len() / 2);
    save(first, &to_bytes, first_bytes);
    save(second, &to_bytes, second_bytes);
}

/// Reads both runs back.
pub(super) fn load_both<T, const N: usize>(
    bytes: &[u8],
    from_bytes: impl Fn([u8; N]) -> T,
    [first, second]: [&mut [T]; 2],
) {
    let (first_bytes, second_bytes) = bytes.split_at(bytes.len() / 2);
    load(first_bytes, &from_bytes, first);
    load(second_bytes, &from_bytes, second);
}

#[cfg(test)]
mod tests {
    use crate::Backend;
    use crate::backend::KvShape;
    use crate::check::Noise;
    use crate::cpu::Cpu;
    use crate::paged_attention::cache::Kept;
    use crate::paged_attention::cpu::KvCache;

    /// Another block and another slot hold the same bits afterwards, and their neighbours what
    /// they held; bits that are no number come back like all others.
    #[test]
    fn blocks_and_slots_come_back_bit_for_bit() {
        let mut cpu = Cpu::new(1);
        let shape = KvShape { blocks: 3, block_size: 4, kv_heads: 2, head_dim: 8 };
        let mut cache = cpu.kv_cache(shape);
        let all_of = |cache: &KvCache| {
            let Kept::Half(blocks) = &cache.0 else { panic!("half precision is the default") };
            [&blocks.keys[..], &blocks.values].concat()
        };
        let mut noise = Noise::new(7);
        if let Kept::Half(blocks) = &mut cache.0 {
            blocks.keys.fill_with(|| noise.bits() as u16);
            blocks.values.fill_with(|| noise.bits() as u16);
        }
        let before = all_of(&cache);
        let mut bytes = vec![0; cpu.block_bytes(&cache)];
        cpu.save_block(&cache, 0, &mut bytes);
        cpu.load_block(&mut cache, 2, &bytes);
        let after = all_of(&cache);
        let (all, size) = (after.len() / 2, after.len() / 6);
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
